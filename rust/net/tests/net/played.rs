//! Ends that a test plays byte by byte, against a channel of ours at the other end.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::hmac;
use bytes::BytesMut;
use cmgmux_mux::frame::{Control, HEADER_BYTES, Header, kind};
use cmgmux_mux::{Claim, HelloOk, Resume, Resumed, Secret, StreamId};
use cmgmux_net::tls::{channel_acceptor, server_name};
use cmgmux_net::{Channel, CloseCode, Hello, Ledger, Limits};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_local;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::world::{Pki, accept_all, listener};

pub(crate) const STREAM: u32 = 1 << 31 | 1;

/// The next frame; nothing once the other end has closed the link.
pub(crate) async fn read_frame(link: &mut (impl AsyncRead + Unpin)) -> Option<(Header, Vec<u8>)> {
    let mut header = [0; HEADER_BYTES];
    link.read_exact(&mut header).await.ok()?;
    let header = Header::decode(&header).unwrap().unwrap();
    let mut body = vec![0; header.length as usize];
    link.read_exact(&mut body).await.unwrap();
    Some((header, body))
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    let stream = StreamId::from_wire(stream);
    [&Header { length, kind, flags, stream }.encode()[..], body].concat()
}

pub(crate) fn close(code: CloseCode, text: &str) -> BytesMut {
    let mut frame = BytesMut::new();
    let close = Control::Close { code: code.0, text: text.to_owned() };
    close.encode(StreamId::CHANNEL, &mut frame);
    frame
}

/// The code of the CLOSE that is the last frame on the link.
pub(crate) async fn last_word(link: &mut (impl AsyncRead + Unpin)) -> CloseCode {
    let mut last = None;
    while let Some(frame) = read_frame(link).await {
        assert!(last.is_none(), "a frame behind CLOSE");
        if frame.0.kind == kind::CLOSE {
            last = Some(frame);
        }
    }
    let (header, body) = last.expect("a CLOSE");
    match Control::decode(&header, &body).unwrap() {
        Control::Close { code, .. } => CloseCode(code),
        other => panic!("{other:?}"),
    }
}

/// The instance's end of the next link, after TLS.
pub(crate) async fn accept_tls(pki: &Pki, listener: &TcpListener) -> server::TlsStream<TcpStream> {
    let acceptor = channel_acceptor(&pki.credentials("server"), &pki.trust());
    let (socket, _) = listener.accept().await.unwrap();
    TlsAcceptor::from(acceptor).accept(socket).await.unwrap()
}

/// A connection point's channel, and the instance's end of its link, where HELLO has been read and
/// `first` was sent behind HELLO_OK.
pub(crate) async fn play_instance(
    test: &str,
    first: &[u8],
) -> (Channel, server::TlsStream<TcpStream>) {
    play_instance_allowed(test, first, Limits::default()).await
}

/// The same for a connection point that allows the instance no more than `limits`.
pub(crate) async fn play_instance_allowed(
    test: &str,
    first: &[u8],
    limits: Limits,
) -> (Channel, server::TlsStream<TcpStream>) {
    let pki = Pki::new(test);
    let (listener, address) = listener();
    let accepting = async {
        let mut link = accept_tls(&pki, &listener).await;
        let (header, _) = read_frame(&mut link).await.unwrap();
        assert_eq!(header.kind, kind::HELLO);
        let ok = HelloOk {
            limits: Limits::default(),
            shards: 1,
            boot_id: [2; 16],
            channel_id: [3; 16],
            secret: Secret([4; 32]),
        };
        link.write_all(&[&ok.encode()[..], first].concat()).await.unwrap();
        link
    };
    let (established, link) = tokio::join!(pki.dial_allowing(address, "point", limits), accepting);
    let (channel, driver) = Channel::start(established.unwrap(), &Arc::default()).unwrap();
    spawn_local(driver);
    (channel, link)
}

/// A connection point that the test plays, and the instance that it talks to.
pub(crate) struct Played {
    pub(crate) pki: Rc<Pki>,
    pub(crate) address: SocketAddr,
    pub(crate) instance: Channel,
    pub(crate) link: client::TlsStream<TcpStream>,
    pub(crate) agreed: HelloOk,
    started: UnboundedReceiver<Channel>,
}

impl Played {
    pub(crate) async fn new(test: &str) -> Self {
        Self::sharing(test, Arc::default()).await
    }

    pub(crate) async fn sharing(test: &str, ledger: Arc<Ledger>) -> Self {
        let pki = Rc::new(Pki::new(test));
        let (listener, address) = listener();
        let mut started = accept_all(&pki, listener, ledger);
        let (link, agreed, instance) = greet(&pki, address, &mut started).await;
        Self { pki, address, instance, link, agreed, started }
    }

    /// Opens another channel and forgets the one that there was.
    pub(crate) async fn greet(&mut self) {
        (self.link, self.agreed, self.instance) =
            greet(&self.pki, self.address, &mut self.started).await;
    }

    /// Sees that the channel is still on its first link; how many bytes that took.
    pub(crate) async fn is_undisturbed(&mut self) -> u64 {
        let open = frame(kind::OPEN, 0, 1, b"\x01\0\0\0undisturbed");
        self.link.write_all(&open).await.unwrap();
        let mut incoming = self.instance.accept().await.unwrap();
        assert_eq!(incoming.recv.chunk().await.unwrap().unwrap().data, &b"undisturbed"[..]);
        assert_eq!(self.instance.stats().resumes, 0);
        open.len() as u64
    }

    /// A new link and the RESUME that is right for it.
    pub(crate) async fn claim(
        &self,
        who: &str,
        claim: Claim,
    ) -> (client::TlsStream<TcpStream>, Resume) {
        let link = dial(self.address, self.pki.dialer(who)).await;
        let channel_id = self.agreed.channel_id;
        let mut resume = Resume { channel_id, claim, nonce: [7; 8], proof: [0; 32] };
        resume.proof = proof(&resume, &self.agreed.secret, &link);
        (link, resume)
    }

    /// Sends one RESUME over a new link, changed by `change`; what the instance answers.
    pub(crate) async fn ask(
        &self,
        who: &str,
        claim: Claim,
        change: impl FnOnce(&mut Resume),
    ) -> (client::TlsStream<TcpStream>, Resumed) {
        let (mut link, mut resume) = self.claim(who, claim).await;
        change(&mut resume);
        link.write_all(&resume.encode()).await.unwrap();
        let (header, body) = read_frame(&mut link).await.unwrap();
        assert_eq!(header.kind, kind::RESUMED);
        (link, Resumed::decode(&body).unwrap())
    }
}

/// A link on which the instance has answered HELLO, and the channel that it has started.
async fn greet(
    pki: &Pki,
    address: SocketAddr,
    started: &mut UnboundedReceiver<Channel>,
) -> (client::TlsStream<TcpStream>, HelloOk, Channel) {
    let mut link = dial(address, pki.dialer("point")).await;
    link.write_all(&hello()).await.unwrap();
    let (_, body) = read_frame(&mut link).await.unwrap();
    (link, HelloOk::decode(&body).unwrap(), started.recv().await.unwrap())
}

pub(crate) async fn dial(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
) -> client::TlsStream<TcpStream> {
    dial_over(TcpStream::connect(address).await.unwrap(), tls).await
}

pub(crate) async fn dial_over(
    socket: TcpStream,
    tls: Arc<ClientConfig>,
) -> client::TlsStream<TcpStream> {
    let name = server_name("localhost", "server_name").unwrap();
    TlsConnector::from(tls).connect(name, socket).await.unwrap()
}

pub(crate) fn hello() -> BytesMut {
    Hello { limits: Limits::default(), instance: 0, ordinal: 0, boot_id: [1; 16] }.encode()
}

/// The proof of a RESUME as the document has it.
pub(crate) fn proof(
    resume: &Resume,
    secret: &Secret,
    link: &client::TlsStream<TcpStream>,
) -> [u8; 32] {
    let exporter = link.get_ref().1;
    let exporter = exporter.export_keying_material([0; 32], b"EXPORTER-cmgmux-resume", None);
    let frame = resume.encode();
    let body = &frame[HEADER_BYTES..];
    let message = [b"cmgmux resume v1", &body[..body.len() - 32], &exporter.unwrap()].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret.0), &message);
    tag.as_ref().try_into().unwrap()
}
