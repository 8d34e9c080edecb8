//! A stand-in for a gateway: it ends TLS and does one simple thing with each connection.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use cmgmux_net::pki::{Authority, PemPair};
use cmgmux_net::tls::{Credentials, FileSetting, front_acceptor};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::Folder;

/// What the gateway does with a connection.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// Carries its bytes to and from a role.
    Forward(SocketAddr),
    /// Reads a request, writes these bytes, and closes the connection.
    Say(String),
    /// Reads and never answers.
    Mute,
}

/// A running gateway with its certificates. Ends, with all connections, when dropped.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) folder: Folder,
    counts: Arc<Counts>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    with_certificate: AtomicU64,
}

impl Gateway {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let folder = Folder::new();
        let authority = Authority::create("test authority", 1).unwrap();
        folder.write("ca.pem", &authority.pem().certificate);
        folder.write("other-ca.pem", &Authority::create("other", 1).unwrap().pem().certificate);
        write_pair(&folder, "gateway", &authority.issue_server(&["gateway.test"]).unwrap());
        write_pair(&folder, "client", &authority.issue_client("client").unwrap());
        let (certificate, key) = (folder.path("gateway.pem"), folder.path("gateway.key"));
        let credentials =
            Credentials::load(FileSetting::new("c", &certificate), FileSetting::new("k", &key));
        let acceptor = TlsAcceptor::from(front_acceptor(&credentials.unwrap()));

        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = oneshot::channel();
        let seen = Arc::clone(&counts);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, acceptor, behaviour, seen) => {}
                }
            });
        });
        Self { address, folder, counts, stop: Some(stop), thread: Some(thread) }
    }

    /// Settings of a swarm that trusts this gateway.
    pub(crate) fn swarm_settings(&self) -> Value {
        json!({
            "target": self.address.to_string(),
            "server_name": "gateway.test",
            "ca": self.folder.path("ca.pem"),
            "path": "/notifications",
            "connect_rate_per_s": 10_000.0,
            "response_timeout_s": 60.0,
        })
    }

    /// Connections whose handshake succeeded.
    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Those that showed a client certificate.
    pub(crate) fn with_certificate(&self) -> u64 {
        self.counts.with_certificate.load(Ordering::Relaxed)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the gateway's thread panicked");
    }
}

fn write_pair(folder: &Folder, name: &str, pair: &PemPair) {
    folder.write(&format!("{name}.pem"), &pair.certificate);
    folder.write(&format!("{name}.key"), &pair.key);
}

async fn accept(
    listener: std::net::TcpListener,
    acceptor: TlsAcceptor,
    behaviour: Behaviour,
    counts: Arc<Counts>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, behaviour) = (acceptor.clone(), behaviour.clone());
        let counts = Arc::clone(&counts);
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(tcp).await else {
                return;
            };
            counts.connections.fetch_add(1, Ordering::Relaxed);
            let shown = u64::from(stream.get_ref().1.peer_certificates().is_some());
            counts.with_certificate.fetch_add(shown, Ordering::Relaxed);
            // The swarm's ends of these connections are what the tests look at.
            let _ = serve(stream, behaviour).await;
        });
    }
}

async fn serve(mut stream: TlsStream<TcpStream>, behaviour: Behaviour) -> std::io::Result<()> {
    match behaviour {
        Behaviour::Forward(role) => {
            let mut upstream = TcpStream::connect(role).await?;
            copy_bidirectional(&mut stream, &mut upstream).await?;
        }
        Behaviour::Say(answer) => {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await?;
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
        }
        Behaviour::Mute => {
            let mut request = [0; 1024];
            while stream.read(&mut request).await? > 0 {}
        }
    }
    Ok(())
}
