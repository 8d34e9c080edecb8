use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::*;

fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    change(&mut params);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn with_uris(uris: &[&str]) -> CertificateDer<'static> {
    certificate(|params| {
        let names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names = names.collect();
    })
}

fn refusal(uris: &[&str]) -> String {
    PeerIdentity::from_certificate(&with_uris(uris)).expect_err("refused").to_string()
}

#[test]
fn a_connection_point_is_named_by_its_uri() {
    let uris = ["spiffe://other/thing", "cmgmux://NYC/cp-1.example_x"];
    let peer = PeerIdentity::from_certificate(&with_uris(&uris)).unwrap();
    assert_eq!(peer, PeerIdentity::new("NYC", "cp-1.example_x").unwrap());
    assert_eq!(peer.to_string(), "NYC/cp-1.example_x");
    assert_eq!(peer.uri(), uris[1]);
}

#[test]
fn a_certificate_that_names_nobody_is_refused() {
    let expected = "no subject alternative name of the form cmgmux://<site>/<name>";
    assert_eq!(refusal(&[]), expected);
    assert_eq!(refusal(&["https://NYC/cp1"]), expected);
}

#[test]
fn a_certificate_that_names_two_is_refused() {
    let message = refusal(&["cmgmux://NYC/cp1", "cmgmux://LAX/cp1"]);
    assert!(message.starts_with("2 subject alternative names"), "{message}");
    assert!(refusal(&["cmgmux://NYC/cp1", "cmgmux://bad"]).starts_with("2 subject"));
}

#[test]
fn names_that_break_the_rules_are_refused() {
    let long = format!("cmgmux://NYC/{}", "a".repeat(65));
    for uri in [
        "cmgmux://NYC",
        "cmgmux://NYC/",
        "cmgmux:///cp1",
        "cmgmux://nyc/cp1",
        "cmgmux://NY/cp1",
        "cmgmux://NYCX/cp1",
        "cmgmux://N.C/cp1",
        "cmgmux://NYC/cp/1",
        "cmgmux://NYC/cp1?x",
        "cmgmux://NYC/cp%31",
        "cmgmux://NYC/cp 1",
        "cmgmux://NYC/cp\r\n1",
        "cmgmux://a@NYC/cp1",
        &long,
    ] {
        let error = PeerIdentity::from_certificate(&with_uris(&[uri])).expect_err(uri);
        assert!(matches!(error, IdentityError::Malformed { .. }), "{uri}: {error}");
    }
    assert!("cmgmux://NÜC/cp1".parse::<PeerIdentity>().is_err());
    assert_eq!(PeerIdentity::new("A1B", &"a".repeat(64)).unwrap().name.len(), 64);
}

#[test]
fn a_foreign_name_is_quoted_and_shortened_in_messages() {
    let message = refusal(&["cmgmux://NYC/a\nb"]);
    assert!(message.starts_with(r#""cmgmux://NYC/a\nb": the name must be"#), "{message}");
    assert!(refusal(&[&format!("cmgmux://NYC/{}", "a".repeat(9_000))]).len() < 300);
}

#[test]
fn what_is_not_a_certificate_is_refused() {
    let whole = with_uris(&["cmgmux://NYC/cp1"]);
    let mut longer = whole.to_vec();
    longer.push(0);
    for damaged in [&[][..], b"certificate", &whole[..whole.len() - 1], &longer] {
        let error = PeerIdentity::from_certificate(&CertificateDer::from(damaged));
        assert_eq!(error, Err(IdentityError::Unreadable));
    }
}

#[test]
fn a_client_is_described_by_its_certificate() {
    let certificate = certificate(|params| {
        params.distinguished_name.push(DnType::OrganizationName, "Contoso, Inc.");
        params.distinguished_name.push(DnType::CommonName, "client 17");
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    });
    let client = ClientCertificate::read(&certificate).unwrap();
    assert_eq!(client.subject, "CN=client 17,O=Contoso\\, Inc.");
    assert_eq!(client.issuer, client.subject);
    assert_eq!(client.common_name.as_deref(), Some("client 17"));
    assert_eq!(client.not_after_unix_s, 2_208_988_800);
    assert_eq!(expires_unix_s(&certificate), Ok(2_208_988_800));
}

#[test]
fn the_fingerprint_is_sha256_of_the_certificate() {
    assert_eq!(
        sha256_hex(b"abc"),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}
