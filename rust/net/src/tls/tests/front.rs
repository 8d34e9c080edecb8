use rustls::version::{TLS12, TLS13};

use super::*;

/// A front with its CA, and a CA for clients.
struct Front {
    acceptor: Arc<ServerConfig>,
    ca: Authority,
    clients: Authority,
}

impl Front {
    fn new(folder: &Folder) -> Self {
        let ca = authority("Gateway CA");
        let credentials = folder.credentials(&ca.issue_server(&["gateway.test"]).unwrap());
        Self { acceptor: front_acceptor(&credentials), ca, clients: authority("Client CA") }
    }

    fn dialer(
        &self,
        folder: &Folder,
        pair: Option<&PemPair>,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let credentials = pair.map(|pair| folder.credentials(pair));
        let builder = dialer(&[version]).with_root_certificates(folder.roots(&self.ca));
        let mut config = match credentials {
            Some(credentials) => builder.with_client_cert_resolver(credentials.resolver()),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![FRONT_ALPN.to_vec()];
        Arc::new(config)
    }
}

#[test]
fn a_client_may_come_without_a_certificate() {
    let folder = Folder::new();
    let front = Front::new(&folder);
    for version in [&TLS12, &TLS13] {
        let dialer = front.dialer(&folder, None, version);
        let accepted = meet(&front.acceptor, &dialer, "gateway.test").accepted();
        assert_eq!(accepted.chain.len(), 0);
        assert_eq!(accepted.version, version.version);
        assert_eq!(accepted.alpn.as_deref(), Some(FRONT_ALPN));
    }
}

#[test]
fn a_certificate_is_taken_from_anybody_and_judged_by_the_roots_later() {
    let folder = Folder::new();
    let front = Front::new(&folder);
    let roots = ClientRoots::from_pem(&[&front.clients.pem().certificate]).unwrap();
    let ours = front.clients.issue_client("ours").unwrap();
    let theirs = authority("Stranger").issue_client("theirs").unwrap();
    for version in [&TLS12, &TLS13] {
        let chain = |pair| {
            let dialer = front.dialer(&folder, Some(pair), version);
            meet(&front.acceptor, &dialer, "gateway.test").accepted().chain
        };
        roots.verify(&chain(&ours)).unwrap();
        roots.verify(&chain(&theirs)).expect_err("not one of ours");
    }
}

#[test]
fn a_client_without_the_key_of_its_certificate_is_refused() {
    let folder = Folder::new();
    let front = Front::new(&folder);
    let shown = folder.credentials(&front.clients.issue_client("victim").unwrap());
    let held = folder.credentials(&front.clients.issue_client("thief").unwrap());
    let stolen =
        rustls::sign::CertifiedKey::new(shown.chain().to_vec(), Arc::clone(&held.certified().key));
    for version in [&TLS12, &TLS13] {
        let config = dialer(&[version])
            .with_root_certificates(folder.roots(&front.ca))
            .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                stolen.clone(),
            )));
        let (accepting, _) = meet(&front.acceptor, &Arc::new(config), "gateway.test").refused();
        assert!(accepting.starts_with("a signature in the peer's"), "{accepting}");
    }
}

#[test]
fn a_resumed_session_brings_the_certificate_back() {
    let folder = Folder::new();
    let front = Front::new(&folder);
    let pair = front.clients.issue_client("client-17").unwrap();
    for version in [&TLS12, &TLS13] {
        let dialer = front.dialer(&folder, Some(&pair), version);
        let first = meet(&front.acceptor, &dialer, "gateway.test").accepted();
        let second = meet(&front.acceptor, &dialer, "gateway.test").accepted();
        assert_eq!(first.kind, HandshakeKind::Full);
        assert_eq!(second.kind, HandshakeKind::Resumed);
        assert_eq!(first.chain.len(), 1);
        assert_eq!(second.chain, first.chain);
    }
}

#[test]
fn a_ticket_of_another_process_leads_to_a_full_handshake() {
    let folder = Folder::new();
    let front = Front::new(&folder);
    let dialer = front.dialer(&folder, None, &TLS13);
    meet(&front.acceptor, &dialer, "gateway.test").accepted();
    let credentials = folder.credentials(&front.ca.issue_server(&["gateway.test"]).unwrap());
    let restarted = front_acceptor(&credentials);
    let accepted = meet(&restarted, &dialer, "gateway.test").accepted();
    assert_eq!(accepted.kind, HandshakeKind::Full);
}

#[test]
fn one_ticket_is_sent_for_each_session() {
    let folder = Folder::new();
    let front = Front::new(&folder);
    let dialer = front_dialer(folder.roots(&front.ca), None);
    let met = meet(&front.acceptor, &dialer, "gateway.test");
    assert_eq!(met.dialled.map(|dialled| dialled.tickets), Ok(1));
}

#[test]
fn plain_http_is_recognised() {
    let folder = Folder::new();
    let front = Front::new(&folder);
    assert_eq!(plain_http_to(&front.acceptor), "the peer does not speak TLS");
}
