//! One instance with a connection point whose answers the test decides.

use std::future::Future;
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cmgmux_exchange::publication::{Publication, PublicationAnswer};
use cmgmux_gateway::{Gateway, GatewayConfig};
use cmgmux_net::pki::{Authority, PemPair};
use cmgmux_net::tls::{
    Credentials, FRONT_ALPN, FRONT_ALPN_H2, FileSetting, channel_dialer, front_dialer, load_roots,
    server_name,
};
use cmgmux_net::{Channel, End, Hello, Incoming, Limits, Service, StreamKind, greet};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Far beyond what anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);

static WORLDS: AtomicU32 = AtomicU32::new(0);

/// A gateway instance in a folder of its own.
pub(crate) struct World {
    folder: PathBuf,
    pub(crate) gateway: Gateway,
    client_ca: String,
    /// A second descriptor of each connection point's socket.
    links: Mutex<Vec<std::net::TcpStream>>,
}

impl World {
    fn new(settings: &Value) -> Self {
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let name = format!("cmgmux-gateway-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, pair: &PemPair| {
            std::fs::write(folder.join(format!("{name}.pem")), &pair.certificate).unwrap();
            std::fs::write(folder.join(format!("{name}.key")), &pair.key).unwrap();
        };
        let [gateway_ca, site_ca, client_ca, strange_ca] = ["gateway", "site", "client", "strange"]
            .map(|name| Authority::create(name, 30).unwrap());
        write("gateway-ca", gateway_ca.pem());
        write("site-ca", site_ca.pem());
        write("gateway", &gateway_ca.issue_server(&["localhost"]).unwrap());
        write("cp1", &site_ca.issue_connection_point("NYC", "cp1").unwrap());
        write("cp2", &site_ca.issue_connection_point("NYC", "cp2").unwrap());
        write("client", &client_ca.issue_client("client-17").unwrap());
        write("stranger", &strange_ca.issue_client("client-17").unwrap());
        let mut config = json!({
            "listen": "127.0.0.1:0",
            "channel_listen": "127.0.0.1:0",
            "certificate": folder.join("gateway.pem"),
            "key": folder.join("gateway.key"),
            "shards": 1,
            "admission_timeout_s": 0.2,
            "trusted": [{"ca": folder.join("site-ca.pem"), "sites": ["NYC"]}],
        });
        for (key, value) in settings.as_object().unwrap() {
            config[key] = value.clone();
        }
        let config: GatewayConfig = serde_json::from_value(config).unwrap();
        let gateway = Gateway::start(config).unwrap();
        let client_ca = client_ca.pem().certificate.clone();
        Self { folder, gateway, client_ca, links: Mutex::default() }
    }

    fn credentials(&self, name: &str) -> Credentials {
        let certificate = self.folder.join(format!("{name}.pem"));
        let key = self.folder.join(format!("{name}.key"));
        let certificate = FileSetting::new("certificate", &certificate);
        Credentials::load(certificate, FileSetting::new("key", &key)).unwrap()
    }

    /// A TLS connection of a client, with the certificate of this name, for HTTP/1.1.
    pub(crate) async fn client(&self, certificate: Option<&str>) -> TlsStream<TcpStream> {
        self.dial(certificate, FRONT_ALPN).await
    }

    /// As [`client`](Self::client), for HTTP/2.
    pub(crate) async fn h2_client(&self, certificate: Option<&str>) -> TlsStream<TcpStream> {
        self.dial(certificate, FRONT_ALPN_H2).await
    }

    async fn dial(&self, certificate: Option<&str>, protocol: &[u8]) -> TlsStream<TcpStream> {
        let ca = self.folder.join("gateway-ca.pem");
        let roots = load_roots(FileSetting::new("ca", &ca)).unwrap();
        let credentials = certificate.map(|name| self.credentials(name));
        let mut config = ClientConfig::clone(&front_dialer(roots, credentials.as_ref()));
        config.alpn_protocols = vec![protocol.to_vec()];
        let tls = TlsConnector::from(Arc::new(config));
        let socket = TcpStream::connect(self.gateway.client_address()).await.unwrap();
        tls.connect(server_name("localhost", "name").unwrap(), socket).await.unwrap()
    }

    /// Connects a connection point that publishes `/open` (no authentication), `/closed`
    /// (certificate), `/held` and `/quick`, which has to answer within 0.1 s, and hands each exchange to
    /// `answer`.
    pub(crate) async fn connect<F, A>(&self, answer: F) -> Channel
    where
        F: Fn(Incoming) -> A + 'static,
        A: Future<Output = ()> + 'static,
    {
        self.connect_as("cp1", answer).await
    }

    /// As [`connect`](Self::connect), and gives the exchanges to the test.
    pub(crate) async fn connect_and_hand_over(&self) -> UnboundedReceiver<Incoming> {
        let (sender, streams) = unbounded_channel();
        self.connect(move |stream| {
            sender.send(stream).unwrap();
            async {}
        })
        .await;
        streams
    }

    /// Sends a request on a connection of its own; gives that, and the stream by which the request came to
    /// who has the exchanges.
    pub(crate) async fn ask(
        &self,
        streams: &mut UnboundedReceiver<Incoming>,
        request: &str,
    ) -> (TlsStream<TcpStream>, Incoming) {
        let mut client = self.client(None).await;
        client.write_all(request.as_bytes()).await.unwrap();
        (client, streams.recv().await.unwrap())
    }

    /// As [`connect`](Self::connect), for the connection point of this name: `cp1` or `cp2`.
    pub(crate) async fn connect_as<F, A>(&self, name: &str, answer: F) -> Channel
    where
        F: Fn(Incoming) -> A + 'static,
        A: Future<Output = ()> + 'static,
    {
        let ca = self.folder.join("gateway-ca.pem");
        let roots = load_roots(FileSetting::new("gateway_ca", &ca)).unwrap();
        let tls = channel_dialer(&self.credentials(name), roots);
        let socket = TcpStream::connect(self.gateway.channel_address()).await.unwrap();
        let socket = socket.into_std().unwrap();
        self.links.lock().unwrap().push(socket.try_clone().unwrap());
        let socket = TcpStream::from_std(socket).unwrap();
        let hello = Hello { limits: Limits::default(), instance: 0, ordinal: 0, boot_id: [7; 16] };
        let name = server_name("localhost", "name").unwrap();
        let established = greet(socket, tls, name, hello).await.unwrap();
        let (channel, driver) = Channel::start(established, &Arc::default()).unwrap();
        spawn_local(driver);
        let mapping = |external: &str, authentication: &str| {
            serde_json::from_value(json!({
                "external": external,
                "internal": "http://127.0.0.1:1",
                "authentication": authentication,
                "max_body_bytes": 100_000,
                "hold": external == "/held",
                "response_timeout_s": if external == "/quick" { 0.1 } else { 60.0 },
            }))
            .unwrap()
        };
        let mappings = vec![
            mapping("/open", "none"),
            mapping("/closed", "certificate"),
            mapping("/held", "none"),
            mapping("/quick", "none"),
        ];
        let roots = vec![self.client_ca.clone()];
        let publication = Publication::new(1, "NYC".to_owned(), mappings, roots);
        let (mut send, mut recv) = channel.try_open(StreamKind::Control).unwrap();
        send.send(publication.encode().unwrap(), End::Part).unwrap();
        let answered = recv.chunk().await.unwrap().unwrap();
        let answered = PublicationAnswer::decode(&answered.data).unwrap();
        assert!(answered.accepted, "{answered:?}");
        let accepting = channel.clone();
        let answer = Arc::new(answer);
        spawn_local(async move {
            let _control = (send, recv);
            while let Some(stream) = accepting.accept().await {
                spawn_local(answer(stream));
            }
        });
        channel
    }

    /// Breaks the link of the connection point that came first. Nobody dials again.
    pub(crate) fn cut_first_link(&self) {
        self.links.lock().unwrap()[0].shutdown(Shutdown::Both).unwrap();
    }

    /// Requests that moved to another connection point.
    pub(crate) fn moved(&self) -> u64 {
        self.gateway.status()["shards"][0]["requests_moved_total"].as_u64().unwrap()
    }

    /// Channels, with and without a link.
    pub(crate) fn channels(&self) -> usize {
        self.gateway.status()["channels"].as_array().unwrap().len()
    }

    /// The refusals counted so far under this code.
    pub(crate) fn refusals(&self, code: &str) -> u64 {
        self.gateway.status()["refusals"][code].as_u64().unwrap_or(0)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.gateway.request_stop(Duration::ZERO);
        let ended = self.gateway.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// Runs `test` against a fresh instance.
pub(crate) fn with_world<F: Future<Output = ()>>(
    settings: Value,
    test: impl FnOnce(Arc<World>) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    let world = Arc::new(World::new(&settings));
    local.block_on(&runtime, async {
        timeout(DEADLINE, test(Arc::clone(&world))).await.expect("in time");
    });
}

/// An answer of this head (without its empty line) and body, in one go.
pub(crate) async fn answer(stream: Incoming, head: &'static str, body: &'static str) {
    let Incoming { mut send, mut recv, .. } = stream;
    while recv.chunk().await.unwrap().is_some() {}
    send.ready().await.unwrap();
    let head = format!("{head}\r\n\r\n");
    send.send(Bytes::from(head), End::Part).unwrap();
    send.send(Bytes::from_static(body.as_bytes()), End::Stream).unwrap();
}
