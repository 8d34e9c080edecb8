//! From a TCP connection to a channel: TLS, then HELLO and HELLO_OK for a new one, RESUME and RESUMED
//! for one that exists.

mod resume;
mod stranger;

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use cmgmux_mux::frame::{Control, HEADER_BYTES, Header, StreamId, kind};
use cmgmux_mux::{
    CloseCode, Config, Hello, HelloOk, Limits, MAX_HELLO_BYTES, ProtocolError, Resume, ResumeCode,
    Secret, Side,
};
use rustls::{ClientConfig, Connection, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::id::{Id, random_bytes};
use crate::identity::PeerIdentity;
use crate::link::{FinishedTls, Link, dismiss};
use crate::tls::{Trust, check_channel_alpn, describe};

use self::stranger::{MAX_STRANGER_BYTES, Stranger};

pub use self::resume::ResumeOffer;
pub(crate) use self::resume::{NewLink, Step, claim_link};

/// Time that a stranger has for its TLS handshake, and again for its HELLO.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a refused peer may still send before its connection is closed.
const DISMISSAL_BYTES: u64 = 64 * 1024;

/// Who is at the other end of a channel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Peer {
    /// A connection point, as its certificate names it.
    ConnectionPoint(PeerIdentity),
    /// The gateway instance with this index.
    Instance(u8),
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ConnectionPoint(identity) => write!(f, "{}/{}", identity.site, identity.name),
            Self::Instance(index) => write!(f, "instance {index}"),
        }
    }
}

/// Why a link did not become a channel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The connection could not be made, or broke.
    #[error("{0}")]
    Connection(String),
    /// TLS failed: foreign bytes, or a certificate that one side does not accept.
    #[error("{0}")]
    Tls(String),
    /// The peer was too slow.
    #[error("no {awaited} within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout {
        /// What should have come.
        awaited: &'static str,
    },
    /// The peer sent more than a handshake takes.
    #[error("more than {MAX_STRANGER_BYTES} bytes in the TLS handshake")]
    TooMuch,
    /// The peer's certificate may not speak for the site that it names.
    #[error("{0}")]
    NotVouched(String),
    /// The peer speaks TLS, but not our protocol.
    #[error("the peer breaks the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// The peer refused the link and said why.
    #[error("the peer refused the link ({code}): {text}")]
    Refused {
        /// Its code.
        code: CloseCode,
        /// Its words.
        text: String,
    },
    /// The peer does not go on with the channel over this link.
    #[error("the channel was not resumed: {0}")]
    NotResumed(ResumeCode),
}

impl HandshakeError {
    /// The error's kind, for logs and counters; with the code of CLOSE if the protocol was broken, such
    /// as `protocol_version`.
    #[must_use]
    pub fn reason(&self) -> Cow<'static, str> {
        let reason = match self {
            Self::Connection(_) => "connection",
            Self::Tls(_) => "tls",
            Self::Timeout { .. } => "timeout",
            Self::TooMuch => "too_much",
            Self::NotVouched(_) => "not_vouched",
            Self::Protocol(error) => return error.code().counter("protocol").into(),
            Self::Refused { .. } => "refused",
            Self::NotResumed(_) => "not_resumed",
        };
        reason.into()
    }
}

/// A link of a connection point, by what it said first.
#[derive(Debug)]
pub enum Arrival {
    /// It wants a new channel.
    Hello(Offer),
    /// It wants to go on with a channel.
    Resume(ResumeOffer),
}

/// A link on which a connection point has said HELLO; the instance answers with
/// [`accept`](Self::accept) or [`refuse`](Self::refuse).
#[derive(Debug)]
pub struct Offer {
    link: Link,
    input: BytesMut,
    /// Whose certificate the link showed.
    pub peer: PeerIdentity,
    /// What it asked for.
    pub hello: Hello,
}

/// A channel agreed by both ends and attached to no thread yet.
#[derive(Debug)]
pub struct Established {
    pub(crate) tls: FinishedTls,
    /// Bytes that arrived behind the handshake.
    pub(crate) input: BytesMut,
    pub(crate) side: Side,
    pub(crate) config: Config,
    /// The other end.
    pub peer: Peer,
    /// The shard of the instance that the channel belongs to.
    pub ordinal: u8,
    /// Names the channel.
    pub channel_id: Id,
    pub(crate) secret: Secret,
    /// Names the run of the other end's process.
    pub peer_boot_id: Id,
    /// How many channels the instance wants from each connection point.
    pub shards: u8,
}

impl Arrival {
    /// Performs the accepting side of TLS and reads the first frame, each within
    /// [`HANDSHAKE_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]; the peer has been told as far as it could be.
    pub async fn receive(
        socket: TcpStream,
        tls: Arc<ServerConfig>,
        trust: &Trust,
    ) -> Result<Self, HandshakeError> {
        let accepting = TlsAcceptor::from(tls).accept(Stranger::new(socket)).into_fallible();
        let stream = match timeout(HANDSHAKE_TIMEOUT, accepting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, stranger))) => {
                let error = if stranger.has_sent_too_much() {
                    HandshakeError::TooMuch
                } else {
                    HandshakeError::Tls(describe(&error))
                };
                dismiss(stranger.socket, DISMISSAL_BYTES).await;
                return Err(error);
            }
            Err(_) => {
                return Err(HandshakeError::Timeout { awaited: "TLS handshake" });
            }
        };
        let (stranger, tls) = stream.into_inner();
        let mut link = link(stranger.socket, Connection::Server(tls))?;
        check_channel_alpn(link.tls().alpn_protocol()).map_err(HandshakeError::Tls)?;
        let chain = link.tls().peer_certificates().unwrap_or_default().to_vec();
        let peer = match trust.identify(&chain) {
            Ok(peer) => peer,
            Err(refusal) => {
                let words = refusal.to_string();
                refuse(link, CloseCode::NOT_VOUCHED, &words).await;
                return Err(HandshakeError::NotVouched(words));
            }
        };
        let mut input = BytesMut::new();
        let frames = [kind::HELLO, kind::RESUME];
        let error = match read_frame(&mut link, &mut input, &frames, "HELLO").await {
            Ok((_, body)) if HEADER_BYTES + body.len() + input.len() > MAX_HELLO_BYTES => {
                let bytes = HEADER_BYTES + body.len() + input.len();
                ProtocolError::EarlyBytes { bytes, max: MAX_HELLO_BYTES }
            }
            Ok((kind::RESUME, body)) => match Resume::decode(&body) {
                Ok(resume) => return ResumeOffer::new(link, input, peer, resume).map(Self::Resume),
                Err(error) => error,
            },
            Ok((_, body)) => match Hello::decode(&body) {
                Ok(hello) => return Ok(Self::Hello(Offer { link, input, peer, hello })),
                Err(error) => error,
            },
            Err(HandshakeError::Protocol(error)) => error,
            Err(error) => return Err(error),
        };
        refuse(link, error.code(), &error.to_string()).await;
        Err(error.into())
    }
}

impl Offer {
    /// Answers HELLO_OK; the channel exists then. `limits` is what this instance allows.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Connection`] if the answer could not be sent.
    pub async fn accept(
        mut self,
        limits: Limits,
        shards: u8,
        boot_id: Id,
        channel_id: Id,
    ) -> Result<Established, HandshakeError> {
        let secret = Secret(random_bytes());
        let answer =
            HelloOk { limits, shards, boot_id: boot_id.0, channel_id: channel_id.0, secret };
        say(&mut self.link, &answer.encode()).await?;
        Ok(Established {
            tls: detach(self.link)?,
            input: self.input,
            side: Side::Instance,
            config: Config { local: limits, peer: self.hello.limits, ..Config::default() },
            peer: Peer::ConnectionPoint(self.peer),
            ordinal: self.hello.ordinal,
            channel_id,
            secret,
            peer_boot_id: Id(self.hello.boot_id),
            shards,
        })
    }

    /// Refuses the link with a reason that the connection point will log.
    pub async fn refuse(self, code: CloseCode, text: &str) {
        refuse(self.link, code, text).await;
    }
}

/// Performs the dialling side of TLS and the handshake over a fresh TCP connection, each within
/// [`HANDSHAKE_TIMEOUT`].
///
/// # Errors
///
/// [`HandshakeError`], with the instance's own words if it refused.
pub async fn greet(
    socket: TcpStream,
    tls: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    hello: Hello,
) -> Result<Established, HandshakeError> {
    let mut link = dial(socket, tls, server_name).await?;
    say(&mut link, &hello.encode()).await?;
    let mut input = BytesMut::new();
    let (_, body) = read_frame(&mut link, &mut input, &[kind::HELLO_OK], "HELLO_OK").await?;
    let ok = HelloOk::decode(&body)?;
    Ok(Established {
        tls: detach(link)?,
        input,
        side: Side::ConnectionPoint,
        config: Config { local: hello.limits, peer: ok.limits, ..Config::default() },
        peer: Peer::Instance(hello.instance),
        ordinal: hello.ordinal,
        channel_id: Id(ok.channel_id),
        secret: ok.secret,
        peer_boot_id: Id(ok.boot_id),
        shards: ok.shards,
    })
}

/// Performs the dialling side of TLS.
async fn dial(
    socket: TcpStream,
    tls: Arc<ClientConfig>,
    server_name: ServerName<'static>,
) -> Result<Link, HandshakeError> {
    let connecting = TlsConnector::from(tls).connect(server_name, socket);
    let stream = timeout(HANDSHAKE_TIMEOUT, connecting)
        .await
        .map_err(|_| HandshakeError::Timeout { awaited: "TLS handshake" })?
        .map_err(|error| HandshakeError::Tls(describe(&error)))?;
    let (socket, tls) = stream.into_inner();
    let link = link(socket, Connection::Client(tls))?;
    check_channel_alpn(link.tls().alpn_protocol()).map_err(HandshakeError::Tls)?;
    Ok(link)
}

fn connection(error: &io::Error) -> HandshakeError {
    match error.kind() {
        io::ErrorKind::InvalidData => HandshakeError::Tls(error.to_string()),
        _ => HandshakeError::Connection(format!("the connection broke: {error}")),
    }
}

fn link(socket: TcpStream, mut tls: Connection) -> Result<Link, HandshakeError> {
    // A batch is always taken whole; how far to encode ahead is the driver's decision.
    tls.set_buffer_limit(None);
    Link::new(socket, tls).map_err(|error| connection(&error))
}

fn detach(link: Link) -> Result<FinishedTls, HandshakeError> {
    link.detach().map_err(|error| connection(&error))
}

/// Tells the peer why its link is not taken. It may be gone; the refusal stands anyway.
async fn refuse(mut link: Link, code: CloseCode, text: &str) {
    let mut frame = BytesMut::new();
    let close = Control::Close { code: code.0, text: text.to_owned() };
    close.encode(StreamId::CHANNEL, &mut frame);
    if say(&mut link, &frame).await.is_ok() {
        link.dismiss(DISMISSAL_BYTES).await;
    }
}

async fn say(link: &mut Link, frame: &[u8]) -> Result<(), HandshakeError> {
    link.write(std::iter::once(frame)).map_err(|error| connection(&error))?;
    timeout(HANDSHAKE_TIMEOUT, poll_fn(|cx| link.poll_flush(cx)))
        .await
        .map_err(|_| HandshakeError::Timeout { awaited: "room in the connection" })?
        .map_err(|error| connection(&error))
}

/// Reads one frame, whose type must be one of `wanted`, and returns its type and body; what follows it
/// stays in `input`.
async fn read_frame(
    link: &mut Link,
    input: &mut BytesMut,
    wanted: &[u8],
    name: &'static str,
) -> Result<(u8, BytesMut), HandshakeError> {
    let reading = async {
        loop {
            if let Some(header) = Header::decode(input)? {
                let frame_bytes = header.frame_bytes();
                let max = MAX_HELLO_BYTES;
                if frame_bytes > max {
                    let max = u32::try_from(max).unwrap_or(u32::MAX);
                    let (kind, length) = (header.kind, header.length);
                    return Err(ProtocolError::FrameSize { kind, length, max }.into());
                }
                if input.len() >= frame_bytes {
                    let mut frame = input.split_to(frame_bytes);
                    frame.advance(HEADER_BYTES);
                    return match header.kind {
                        kind if wanted.contains(&kind) && header.stream == StreamId::CHANNEL => {
                            Ok((kind, frame))
                        }
                        kind::CLOSE => match Control::decode(&header, &frame)? {
                            Control::Close { code, text } => {
                                Err(HandshakeError::Refused { code: CloseCode(code), text })
                            }
                            _ => Err(ProtocolError::UnknownFrame { kind: header.kind }.into()),
                        },
                        kind => Err(ProtocolError::UnknownFrame { kind }.into()),
                    };
                }
            }
            let read = poll_fn(|cx| link.poll_read(cx, input)).await;
            if read.map_err(|error| connection(&error))? == 0 {
                let words = format!("the peer closed the connection before its {name}");
                return Err(HandshakeError::Connection(words));
            }
        }
    };
    timeout(HANDSHAKE_TIMEOUT, reading)
        .await
        .map_err(|_| HandshakeError::Timeout { awaited: name })?
}
