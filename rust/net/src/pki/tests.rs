use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::identity::ClientCertificate;

fn der(pem: &PemPair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.certificate.as_bytes()).unwrap()
}

#[test]
fn what_is_issued_says_who_it_is_for() {
    let authority = Authority::create("Site CA", 30).unwrap();
    let point = authority.issue_connection_point("NYC", "cp1").unwrap();
    let peer = PeerIdentity::from_certificate(&der(&point)).unwrap();
    assert_eq!(peer.to_string(), "NYC/cp1");
    let client = authority.issue_client("client-17").unwrap();
    let client = ClientCertificate::read(&der(&client)).unwrap();
    assert_eq!((client.subject, client.issuer), ("CN=client-17".into(), "CN=Site CA".into()));
}

#[test]
fn what_is_issued_expires_with_its_authority() {
    let authority = Authority::create("CA", 30).unwrap();
    let expires = |pair| identity::expires_unix_s(&der(pair)).unwrap();
    let server = authority.issue_server(&["localhost"]).unwrap();
    assert_eq!(expires(&server), expires(authority.pem()));
    let pem = authority.pem();
    let loaded = Authority::load(&pem.certificate, &pem.key).unwrap();
    assert_eq!(expires(&loaded.issue_client("late").unwrap()), expires(pem));
}

#[test]
fn names_and_days_that_make_no_sense_are_refused() {
    assert_eq!(Authority::create("CA", 0).err(), Some(PkiError::Days { days: 0 }));
    assert_eq!(Authority::create("CA", 36_501).err(), Some(PkiError::Days { days: 36_501 }));
    let authority = Authority::create("CA", 1).unwrap();
    assert_eq!(authority.issue_server::<&str>(&[]).err(), Some(PkiError::NoName));
    let error = authority.issue_server(&["localhost", "a b"]).expect_err("not a name");
    assert_eq!(error.to_string(), "\"a b\" is not a DNS name or IP address");
    assert!(matches!(
        authority.issue_connection_point("nyc", "cp1"),
        Err(PkiError::Identity(IdentityError::Malformed { .. }))
    ));
}

#[test]
fn an_authority_is_loaded_only_from_its_own_kind_of_text() {
    let pem = Authority::create("CA", 1).unwrap().pem().clone();
    for (certificate, key) in [(&pem.key, &pem.key), (&pem.certificate, &pem.certificate)] {
        let error = Authority::load(certificate, key).expect_err("the wrong text");
        assert!(matches!(error, PkiError::Unreadable { .. }), "{error}");
    }
    let other = Authority::create("Other", 1).unwrap().pem().clone();
    let error = Authority::load(&pem.certificate, &other.key).expect_err("keys differ");
    assert!(error.to_string().contains("does not belong"), "{error}");
}

#[test]
fn a_private_key_is_written_for_its_owner_alone() {
    let folder = std::env::temp_dir().join(format!("cmgmux-pki-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let path = folder.join("server.key");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    write_private(&path, "secret").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "secret");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left behind");
    write_private(&folder.join("missing").join("key"), "secret").expect_err("no such folder");
    fs::remove_dir_all(&folder).unwrap();
}
