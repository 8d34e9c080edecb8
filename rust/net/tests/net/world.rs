//! Certificates, and the two ends of a channel over real TLS.

use std::cell::Cell;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use cmgmux_net::pki::Authority;
use cmgmux_net::tls::{
    Credentials, FileSetting, Trust, TrustedCa, channel_acceptor, channel_dialer, load_roots,
    server_name,
};
use cmgmux_net::{
    Arrival, Channel, End, Established, HandshakeError, Hello, Id, Ledger, Limits, RecvStream,
    ResumeCode, SendStream, StreamError, greet,
};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::UnixTime;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

/// Far beyond what anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Certificates of one test, in a folder of its own.
pub(crate) struct Pki {
    folder: PathBuf,
    lapse: Cell<Option<Lapse>>,
}

/// Why the connection points' certificates are not accepted any more.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lapse {
    /// A hundred days have passed.
    Expired,
    /// Another CA is trusted instead of theirs.
    Distrusted,
}

/// A clock that is a hundred days fast.
#[derive(Debug)]
struct Fast;

impl TimeProvider for Fast {
    fn current_time(&self) -> Option<UnixTime> {
        let now = DefaultTimeProvider.current_time()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 100 * 86_400)))
    }
}

impl Pki {
    pub(crate) fn new(test: &str) -> Self {
        // Tests run at once, and some have the same name.
        static PKIS: AtomicUsize = AtomicUsize::new(0);
        let (process, number) = (std::process::id(), PKIS.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(format!("cmgmux-net-{test}-{process}-{number}"));
        std::fs::create_dir_all(&folder).unwrap();
        let pki = Self { folder, lapse: Cell::new(None) };
        let gateway = Authority::create("gateway", 30).unwrap();
        let site = Authority::create("site", 30).unwrap();
        let stranger = Authority::create("stranger", 30).unwrap();
        let par_authority = Authority::create("par", 30).unwrap();
        pki.write("gateway-ca.pem", &gateway.pem().certificate);
        pki.write("site-ca.pem", &site.pem().certificate);
        pki.write("stranger-ca.pem", &stranger.pem().certificate);
        pki.write("par-ca.pem", &par_authority.pem().certificate);
        let server = gateway.issue_server(&["localhost"]).unwrap();
        let point = site.issue_connection_point("NYC", "cp1").unwrap();
        let colleague = site.issue_connection_point("NYC", "cp2").unwrap();
        let impostor = stranger.issue_connection_point("NYC", "cp1").unwrap();
        let namesake = par_authority.issue_connection_point("PAR", "cp1").unwrap();
        let abroad = site.issue_connection_point("PAR", "cp1").unwrap();
        for (name, issued) in [
            ("server", server),
            ("point", point),
            ("colleague", colleague),
            ("namesake", namesake),
            ("impostor", impostor),
            ("abroad", abroad),
        ] {
            pki.write(&format!("{name}.pem"), &issued.certificate);
            pki.write(&format!("{name}.key"), &issued.key);
            if name == "point" {
                pki.write("endless.pem", &issued.certificate.repeat(60));
                pki.write("endless.key", &issued.key);
            }
        }
        pki
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).unwrap();
    }

    pub(crate) fn credentials(&self, name: &str) -> Credentials {
        let certificate = self.folder.join(format!("{name}.pem"));
        let key = self.folder.join(format!("{name}.key"));
        let (certificate, key) =
            (FileSetting::new("certificate", &certificate), FileSetting::new("key", &key));
        Credentials::load(certificate, key).unwrap()
    }

    /// Has the instance accept the connection points' certificates no more, or again.
    pub(crate) fn lapse(&self, lapse: Option<Lapse>) {
        self.lapse.set(lapse);
    }

    pub(crate) fn trust(&self) -> Trust {
        let is_distrusted = matches!(self.lapse.get(), Some(Lapse::Distrusted));
        let name = if is_distrusted { "stranger-ca.pem" } else { "site-ca.pem" };
        let trusted = [(name, "NYC"), ("par-ca.pem", "PAR")]
            .map(|(ca, site)| TrustedCa { ca: self.folder.join(ca), sites: vec![site.to_owned()] });
        Trust::load(&trusted).unwrap()
    }

    /// The dialling side's TLS.
    pub(crate) fn dialer(&self, who: &str) -> Arc<ClientConfig> {
        let ca = self.folder.join("gateway-ca.pem");
        let roots = load_roots(FileSetting::new("gateway_ca", &ca)).unwrap();
        channel_dialer(&self.credentials(who), roots)
    }

    pub(crate) async fn dial(
        &self,
        address: SocketAddr,
        who: &str,
    ) -> Result<Established, HandshakeError> {
        self.dial_allowing(address, who, Limits::default()).await
    }

    /// As [`dial`](Self::dial), for a connection point that allows the instance no more than `limits`.
    pub(crate) async fn dial_allowing(
        &self,
        address: SocketAddr,
        who: &str,
        limits: Limits,
    ) -> Result<Established, HandshakeError> {
        let tls = self.dialer(who);
        let socket = TcpStream::connect(address).await.unwrap();
        let name = server_name("localhost", "server_name").unwrap();
        let hello = Hello { limits, instance: 0, ordinal: 0, boot_id: [1; 16] };
        greet(socket, tls, name, hello).await
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn listener() -> (tokio::net::TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (tokio::net::TcpListener::from_std(listener).unwrap(), address)
}

pub(crate) async fn answer(
    pki: &Pki,
    listener: &tokio::net::TcpListener,
) -> Result<Established, HandshakeError> {
    let Arrival::Hello(offer) = arrival(pki, listener).await? else { panic!("not a new channel") };
    offer.accept(Limits::default(), 1, Id([2; 16]), Id([3; 16])).await
}

pub(crate) async fn arrival(
    pki: &Pki,
    listener: &tokio::net::TcpListener,
) -> Result<Arrival, HandshakeError> {
    let (socket, _) = listener.accept().await.unwrap();
    let trust = pki.trust();
    let tls = channel_acceptor(&pki.credentials("server"), &trust);
    let mut tls = ServerConfig::clone(&tls);
    if matches!(pki.lapse.get(), Some(Lapse::Expired)) {
        tls.time_provider = Arc::new(Fast);
    }
    Arrival::receive(socket, Arc::new(tls), &trust).await
}

/// Accepts one channel after the other and gives them; every proven link of the latest one is its own.
pub(crate) fn accept_all(
    pki: &Rc<Pki>,
    listener: tokio::net::TcpListener,
    ledger: Arc<Ledger>,
) -> UnboundedReceiver<Channel> {
    let (channels, started) = unbounded_channel();
    let pki = Rc::clone(pki);
    spawn_local(async move {
        let mut channel: Option<Channel> = None;
        loop {
            match arrival(&pki, &listener).await {
                Ok(Arrival::Hello(offer)) => {
                    let (boot_id, id) = (Id([2; 16]), Id([3; 16]));
                    let agreed = offer.accept(Limits::default(), 1, boot_id, id).await.unwrap();
                    let (started, driver) = Channel::start(agreed, &ledger).unwrap();
                    spawn_local(driver);
                    channels.send(started.clone()).unwrap();
                    channel = Some(started);
                }
                Ok(Arrival::Resume(offer)) => match &channel {
                    Some(channel) if channel.is_offered(&offer) => {
                        channel.resume(offer).unwrap();
                    }
                    _ => offer.refuse(ResumeCode::UNKNOWN_CHANNEL).await,
                },
                // A link may be cut in its handshake, or dialled for its proof alone.
                Err(_) => {}
            }
        }
    });
    started
}

/// Runs `test` on a thread of its own kind, with the two ends of one channel.
pub(crate) fn with_channel<F: Future<Output = ()>>(
    name: &str,
    test: impl FnOnce(Channel, Channel) -> F,
) {
    run(async {
        let (point, instance) = both_ends(&Pki::new(name), &listener().0).await;
        test(point, instance).await;
    });
}

/// The two ends of a channel, that of the connection point first.
pub(crate) async fn both_ends(pki: &Pki, listener: &tokio::net::TcpListener) -> (Channel, Channel) {
    join(pki, listener.local_addr().unwrap(), listener).await
}

/// As [`both_ends`], over whatever is between `address` and the listener.
pub(crate) async fn join(
    pki: &Pki,
    address: SocketAddr,
    listener: &tokio::net::TcpListener,
) -> (Channel, Channel) {
    let (point, instance) = tokio::join!(pki.dial(address, "point"), answer(pki, listener));
    let start = |established| {
        let (channel, driver) = Channel::start(established, &Arc::default()).unwrap();
        spawn_local(driver);
        channel
    };
    (start(point.unwrap()), start(instance.unwrap()))
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    run_within(DEADLINE, test);
}

/// As [`run`], with a deadline of its own. It is one of real time, whatever the test does to its clock.
pub(crate) fn run_within(deadline: Duration, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (running, is_over) = channel::<()>();
    let (late, is_late) = oneshot::channel();
    thread::spawn(move || {
        if is_over.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout) {
            let _ = late.send(());
        }
    });
    LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            () = test => {}
            Ok(()) = is_late => panic!("not in time"),
        }
    });
    drop(running);
}

pub(crate) async fn read_all(recv: &mut RecvStream) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    while let Some(chunk) = recv.chunk().await? {
        all.extend_from_slice(&chunk.data);
    }
    Ok(all)
}

/// Sends a pattern to somebody who sends back what comes, and checks that it does come back.
pub(crate) async fn check_echo(
    (mut send, mut recv): (SendStream, RecvStream),
    bytes: usize,
    seed: u8,
) {
    let expected = pattern(bytes, seed);
    let writing = async {
        for piece in expected.chunks(10_000) {
            send.write(Bytes::copy_from_slice(piece), End::None).await.unwrap();
        }
        send.write(Bytes::new(), End::Stream).await.unwrap();
    };
    let ((), read) = tokio::join!(writing, read_all(&mut recv));
    assert!(read.unwrap() == expected, "stream {seed} came back changed");
}

pub(crate) fn pattern(bytes: usize, seed: u8) -> Bytes {
    (0..bytes).map(|i| u8::try_from(i % 251).unwrap() ^ seed).collect()
}
