//! Real handshakes over loopback sockets, each side with the certificates of small authorities.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::pki::{Authority, PemPair};

mod channel;
mod files;
mod front;
mod roots;

/// A folder of PEM files for one test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("cmgmux-tls-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn credentials(&self, pair: &PemPair) -> Credentials {
        let (certificate, key) =
            (self.write("own.pem", &pair.certificate), self.write("own.key", &pair.key));
        let certificate = FileSetting::new("certificate", &certificate);
        Credentials::load(certificate, FileSetting::new("key", &key)).unwrap()
    }

    fn roots(&self, authority: &Authority) -> Arc<rustls::RootCertStore> {
        let path = self.write("roots.pem", &authority.pem().certificate);
        load_roots(FileSetting::new("gateway_ca", &path)).unwrap()
    }

    fn trusted(&self, name: &str, authority: &Authority, sites: &[&str]) -> TrustedCa {
        let ca = self.write(name, &authority.pem().certificate);
        TrustedCa { ca, sites: sites.iter().map(|&site| site.to_owned()).collect() }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn authority(name: &str) -> Authority {
    Authority::create(name, 30).unwrap()
}

/// What each side has seen of a connection, as far as it came.
struct Met {
    accepted: Result<Accepted, String>,
    dialled: Result<Dialled, String>,
}

struct Accepted {
    chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    version: ProtocolVersion,
    alpn: Option<Vec<u8>>,
    kind: HandshakeKind,
}

struct Dialled {
    tickets: u32,
}

/// Lets both sides shake hands over loopback; then the accepting side says "hi" and closes.
fn meet(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>, name: &str) -> Met {
    let name = server_name(name, "server_name").unwrap();
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = async {
            let (socket, _) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(Arc::clone(server)).accept(socket).await?;
            let accepted = seen(stream.get_ref().1);
            stream.write_all(b"hi").await?;
            stream.shutdown().await?;
            Ok::<_, io::Error>(accepted)
        };
        let dialling = async {
            let socket = TcpStream::connect(address).await.unwrap();
            let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, socket).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            assert_eq!(answer, b"hi");
            Ok::<_, io::Error>(Dialled { tickets: stream.get_ref().1.tls13_tickets_received() })
        };
        let (accepted, dialled) = tokio::join!(accepting, dialling);
        Met {
            accepted: accepted.map_err(|error| describe(&error)),
            dialled: dialled.map_err(|error| describe(&error)),
        }
    })
}

fn seen(connection: &ServerConnection) -> Accepted {
    Accepted {
        chain: connection.peer_certificates().unwrap_or_default().to_vec(),
        version: connection.protocol_version().unwrap(),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        kind: connection.handshake_kind().unwrap(),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    let deadline = Duration::from_secs(20);
    runtime
        .block_on(async { tokio::time::timeout(deadline, future).await })
        .expect("done before the deadline")
}

impl Met {
    fn accepted(self) -> Accepted {
        self.dialled.map(|_| ()).expect("the dialling side is content");
        self.accepted.map_err(|why| format!("accepting: {why}")).unwrap()
    }

    /// What went wrong for the accepting and for the dialling side.
    fn refused(self) -> (String, String) {
        let accepting = self.accepted.map(|_| ()).expect_err("the accepting side refuses");
        (accepting, self.dialled.map(|_| ()).expect_err("the dialling side notices"))
    }
}

/// Talks to `server` in plain HTTP and says what it made of that.
fn plain_http_to(server: &Arc<ServerConfig>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: gateway\r\n\r\n").unwrap();
    block_on(async {
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = TcpStream::from_std(socket).unwrap();
        let error = TlsAcceptor::from(Arc::clone(server)).accept(socket).await;
        describe(&error.expect_err("not TLS"))
    })
}
