use super::*;

/// An instance that trusts `trusted`, and the CA of its own certificate.
struct Instance {
    acceptor: Arc<ServerConfig>,
    trust: Trust,
    ca: Authority,
}

impl Instance {
    fn new(folder: &Folder, trusted: &[TrustedCa]) -> Self {
        let ca = authority("Gateway CA");
        let credentials =
            folder.credentials(&ca.issue_server(&["gateway.test", "127.0.0.1"]).unwrap());
        let trust = Trust::load(trusted).unwrap();
        Self { acceptor: channel_acceptor(&credentials, &trust), trust, ca }
    }

    fn dialer(&self, folder: &Folder, pair: &PemPair) -> Arc<ClientConfig> {
        channel_dialer(&folder.credentials(pair), folder.roots(&self.ca))
    }
}

// R-LINK-5
#[test]
fn a_connection_point_of_a_trusted_ca_is_identified() {
    let folder = Folder::new();
    let ca = authority("NYC CA");
    let instance = Instance::new(&folder, &[folder.trusted("nyc.pem", &ca, &["NYC", "LAX"])]);
    let dialer = instance.dialer(&folder, &ca.issue_connection_point("NYC", "cp1").unwrap());
    for name in ["gateway.test", "127.0.0.1"] {
        let accepted = meet(&instance.acceptor, &dialer, name).accepted();
        assert_eq!(accepted.version, ProtocolVersion::TLSv1_3);
        check_channel_alpn(accepted.alpn.as_deref()).unwrap();
        let peer = instance.trust.identify(&accepted.chain).unwrap();
        assert_eq!(peer.to_string(), "NYC/cp1");
    }
}

#[test]
fn a_ca_cannot_vouch_for_a_site_that_is_not_its_own() {
    let folder = Folder::new();
    let (nyc, lax) = (authority("NYC CA"), authority("LAX CA"));
    let trusted =
        [folder.trusted("nyc.pem", &nyc, &["NYC"]), folder.trusted("lax.pem", &lax, &["LAX"])];
    let instance = Instance::new(&folder, &trusted);
    let dialer = instance.dialer(&folder, &lax.issue_connection_point("NYC", "evil").unwrap());
    let accepted = meet(&instance.acceptor, &dialer, "gateway.test").accepted();
    let refusal = instance.trust.identify(&accepted.chain).expect_err("LAX is not NYC");
    assert!(matches!(&refusal, Refusal::NotVouched { sites, .. } if sites == "LAX"));
    let message = refusal.to_string();
    assert!(message.contains("NYC/evil was issued by") && message.contains("lax.pem"), "{message}");
}

#[test]
fn a_ca_listed_twice_vouches_for_the_sites_of_both_entries() {
    let folder = Folder::new();
    let ca = authority("CA");
    let trusted = [folder.trusted("a.pem", &ca, &["NYC"]), folder.trusted("b.pem", &ca, &["LAX"])];
    let instance = Instance::new(&folder, &trusted);
    for site in ["NYC", "LAX"] {
        let chain = folder.credentials(&ca.issue_connection_point(site, "cp1").unwrap());
        assert_eq!(instance.trust.identify(chain.chain()).unwrap().site, site);
    }
}

#[test]
fn a_connection_point_of_a_stranger_is_refused_and_both_sides_say_why() {
    let folder = Folder::new();
    let ca = authority("NYC CA");
    let instance = Instance::new(&folder, &[folder.trusted("nyc.pem", &ca, &["NYC"])]);
    // The same name, but another key: what happens when development certificates are made anew.
    let pair = authority("NYC CA").issue_connection_point("NYC", "cp1").unwrap();
    let dialer = instance.dialer(&folder, &pair);
    let (accepting, dialling) = meet(&instance.acceptor, &dialer, "gateway.test").refused();
    assert!(accepting.starts_with("a signature in the peer's certificate"), "{accepting}");
    assert!(dialling.ends_with("perhaps it trusts another CA of the same name"), "{dialling}");
    let pair = authority("Stranger").issue_connection_point("NYC", "cp1").unwrap();
    let dialer = instance.dialer(&folder, &pair);
    let (accepting, dialling) = meet(&instance.acceptor, &dialer, "gateway.test").refused();
    assert_eq!(accepting, "the peer's certificate was not issued by a trusted CA");
    assert_eq!(dialling, "the peer does not trust the CA that issued our certificate");
    let refusal = instance.trust.identify(folder.credentials(&pair).chain()).expect_err("refused");
    assert!(matches!(refusal, Refusal::NotTrusted { .. }), "{refusal}");
}

#[test]
fn an_expired_connection_point_is_refused_and_both_sides_say_why() {
    let folder = Folder::new();
    let ca = authority("NYC CA");
    let instance = Instance::new(&folder, &[folder.trusted("nyc.pem", &ca, &["NYC"])]);
    let pair = ca.issue_expired_connection_point("NYC", "cp1");
    let dialer = instance.dialer(&folder, &pair);
    let (accepting, dialling) = meet(&instance.acceptor, &dialer, "gateway.test").refused();
    assert_eq!(accepting, "the peer's certificate expired 1 day ago");
    assert_eq!(dialling, "the peer says that our certificate has expired or is not valid yet");
}

// R-LINK-1
#[test]
fn a_peer_without_a_certificate_is_refused_and_both_sides_say_why() {
    let folder = Folder::new();
    let ca = authority("NYC CA");
    let instance = Instance::new(&folder, &[folder.trusted("nyc.pem", &ca, &["NYC"])]);
    let mut bare = (*front_dialer(folder.roots(&instance.ca), None)).clone();
    bare.alpn_protocols = vec![CHANNEL_ALPN.to_vec()];
    let (accepting, dialling) = meet(&instance.acceptor, &Arc::new(bare), "gateway.test").refused();
    assert_eq!(accepting, "the peer showed no certificate, which is required");
    assert_eq!(dialling, "the peer requires a certificate and we showed none");
    assert_eq!(instance.trust.identify(&[]), Err(Refusal::NoCertificate));
}

#[test]
fn a_client_certificate_is_no_connection_point() {
    let folder = Folder::new();
    let ca = authority("NYC CA");
    let trust = Trust::load(&[folder.trusted("nyc.pem", &ca, &["NYC"])]).unwrap();
    let client = folder.credentials(&ca.issue_client("client-17").unwrap());
    let refusal = trust.identify(client.chain()).expect_err("it names no connection point");
    assert!(matches!(refusal, Refusal::Identity(_)), "{refusal}");
}

#[test]
fn a_server_certificate_cannot_dial() {
    let folder = Folder::new();
    let ca = authority("CA");
    let instance = Instance::new(&folder, &[folder.trusted("nyc.pem", &ca, &["NYC"])]);
    let dialer = instance.dialer(&folder, &ca.issue_server(&["cp1.test"]).unwrap());
    let (accepting, _) = meet(&instance.acceptor, &dialer, "gateway.test").refused();
    assert!(accepting.contains("not meant for this purpose"), "{accepting}");
}

// R-LINK-4
#[test]
fn a_gateway_of_another_name_or_ca_is_refused_by_the_dialling_side() {
    let folder = Folder::new();
    let ca = authority("NYC CA");
    let instance = Instance::new(&folder, &[folder.trusted("nyc.pem", &ca, &["NYC"])]);
    let pair = ca.issue_connection_point("NYC", "cp1").unwrap();
    let dialer = instance.dialer(&folder, &pair);
    let (accepting, dialling) = meet(&instance.acceptor, &dialer, "other.test").refused();
    assert_eq!(accepting, "the peer does not accept our certificate");
    assert!(
        dialling.starts_with("the peer's certificate is not valid for other.test; it is valid for"),
        "{dialling}"
    );
    let dialer = channel_dialer(&folder.credentials(&pair), folder.roots(&authority("Other CA")));
    let (accepting, dialling) = meet(&instance.acceptor, &dialer, "gateway.test").refused();
    assert_eq!(accepting, "the peer does not trust the CA that issued our certificate");
    assert_eq!(dialling, "the peer's certificate was not issued by a trusted CA");
}

// R-LINK-3
#[test]
fn links_are_never_resumed() {
    let folder = Folder::new();
    let ca = authority("NYC CA");
    let instance = Instance::new(&folder, &[folder.trusted("nyc.pem", &ca, &["NYC"])]);
    let dialer = instance.dialer(&folder, &ca.issue_connection_point("NYC", "cp1").unwrap());
    for _ in 0..2 {
        let met = meet(&instance.acceptor, &dialer, "gateway.test");
        assert_eq!(met.dialled.as_ref().map(|dialled| dialled.tickets), Ok(0));
        assert_eq!(met.accepted().kind, HandshakeKind::Full);
    }
}

// R-LINK-2
#[test]
fn peers_that_speak_something_else_are_told_apart() {
    let folder = Folder::new();
    let ca = authority("NYC CA");
    let instance = Instance::new(&folder, &[folder.trusted("nyc.pem", &ca, &["NYC"])]);
    assert_eq!(plain_http_to(&instance.acceptor), "the peer does not speak TLS");
    let credentials = folder.credentials(&ca.issue_connection_point("NYC", "cp1").unwrap());
    let browser = front_dialer(folder.roots(&instance.ca), Some(&credentials));
    let (accepting, dialling) = meet(&instance.acceptor, &browser, "gateway.test").refused();
    assert_eq!(accepting, "the peer offers no application protocol that we speak");
    assert_eq!(dialling, "the peer speaks none of the application protocols that we offer");
    check_channel_alpn(None).expect_err("a peer that names no protocol");
    let error = check_channel_alpn(Some(b"h2")).expect_err("another protocol");
    assert_eq!(error, "the peer speaks \"h2\" instead of cmgmux/1");
}

#[test]
fn trust_that_makes_no_sense_is_a_configuration_error() {
    let folder = Folder::new();
    let ca = authority("CA");
    let error = |trusted: &[TrustedCa]| Trust::load(trusted).expect_err("refused").to_string();
    assert!(error(&[]).starts_with("trusted: no CA may vouch"));
    let good = || folder.trusted("good.pem", &ca, &["NYC"]);
    assert!(error(&[folder.trusted("ca.pem", &ca, &[])]).starts_with("trusted[0].sites: "));
    let message = error(&[good(), folder.trusted("ca.pem", &ca, &["NYC", "nyc"])]);
    assert!(message.starts_with("trusted[1].sites: \"nyc\" is not a site code"), "{message}");
    let missing = TrustedCa { ca: folder.0.join("missing.pem"), sites: vec!["NYC".to_owned()] };
    let message = error(&[good(), missing]);
    assert!(message.starts_with("trusted[1].ca: ") && message.contains("missing.pem"), "{message}");
}
