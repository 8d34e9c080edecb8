//! Rules of `docs/protocol.md` about links, with one end that the test plays byte by byte.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::hmac;
use bytes::BytesMut;
use cmgmux_mux::frame::{Control, EOM, FIN, HEADER_BYTES, Header, kind};
use cmgmux_mux::{Claim, HelloOk, Resume, Resumed, Secret, StreamId};
use cmgmux_net::tls::{channel_acceptor, server_name};
use cmgmux_net::{
    Channel, CloseCode, End, EndReason, Hello, Ledger, Limits, ResumeCode, StreamError, StreamKind,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::world::{Pki, accept_all, listener, run};

const STREAM: u32 = 1 << 31 | 1;

/// The next frame; nothing once the other end has closed the link.
async fn read_frame(link: &mut (impl AsyncRead + Unpin)) -> Option<(Header, Vec<u8>)> {
    let mut header = [0; HEADER_BYTES];
    link.read_exact(&mut header).await.ok()?;
    let header = Header::decode(&header).unwrap().unwrap();
    let mut body = vec![0; header.length as usize];
    link.read_exact(&mut body).await.unwrap();
    Some((header, body))
}

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    let stream = StreamId::from_wire(stream);
    [&Header { length, kind, flags, stream }.encode()[..], body].concat()
}

/// The code of the CLOSE that is the last frame on the link.
async fn last_word(link: &mut (impl AsyncRead + Unpin)) -> CloseCode {
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

/// A connection point's channel, and the instance's end of its link, where HELLO has been read and
/// `first` was sent behind HELLO_OK.
async fn play_instance(test: &str, first: &[u8]) -> (Channel, server::TlsStream<TcpStream>) {
    let pki = Pki::new(test);
    let (listener, address) = listener();
    let accepting = async {
        let acceptor = channel_acceptor(&pki.credentials("server"), &pki.trust());
        let (socket, _) = listener.accept().await.unwrap();
        let mut link = TlsAcceptor::from(acceptor).accept(socket).await.unwrap();
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
    let (established, link) = tokio::join!(pki.dial(address, "point"), accepting);
    let (channel, driver) = Channel::start(established.unwrap(), &Arc::default()).unwrap();
    spawn_local(driver);
    (channel, link)
}

// R-HELLO-7
#[test]
fn what_comes_right_behind_hello_ok_is_applied() {
    run(async {
        let open = frame(kind::OPEN, FIN | EOM, STREAM, b"\x01\0\0\0early");
        let (point, _link) = play_instance("early", &open).await;
        let mut incoming = point.accept().await.unwrap();
        assert_eq!(incoming.recv.chunk().await.unwrap().unwrap().data, &b"early"[..]);
        assert_eq!(incoming.recv.chunk().await, Ok(None));
    });
}

// R-FRAME-8, R-CLOSE-1
#[test]
fn a_broken_rule_is_answered_with_its_code_and_nothing_behind_it() {
    run(async {
        for (number, (bytes, code)) in [
            (frame(0x1f, 0, 0, b""), CloseCode::UNKNOWN_FRAME),
            (frame(kind::PING, 0, 0, b"short"), CloseCode::MALFORMED),
            (frame(kind::DATA, 0, STREAM, b"nowhere"), CloseCode::STREAM_STATE),
            (frame(kind::HELLO, 0, 0, b""), CloseCode::UNKNOWN_FRAME),
        ]
        .into_iter()
        .enumerate()
        {
            let (point, mut link) = play_instance(&format!("broken-{number}"), &bytes).await;
            assert_eq!(last_word(&mut link).await, code);
            let EndReason::Protocol(error) = point.ended().await else { panic!() };
            assert_eq!(error.code(), code);
        }
    });
}

// R-CLOSE-1, R-CLOSE-2
#[test]
fn close_is_the_last_frame_and_ends_the_channel() {
    run(async {
        let (point, mut link) = play_instance("closing", &[]).await;
        let (mut send, mut recv) = point.try_open(StreamKind::Exchange).unwrap();
        send.send(b"asked".as_slice().into(), End::None).unwrap();
        let (header, _) = read_frame(&mut link).await.unwrap();
        assert_eq!(header.kind, kind::OPEN);
        point.close(CloseCode::INTERNAL, "by the test");
        assert_eq!(last_word(&mut link).await, CloseCode::INTERNAL);
        recv.chunk().await.unwrap_err();

        let (point, mut link) = play_instance("closed", &[]).await;
        let mut close = BytesMut::new();
        let words = Control::Close { code: 14, text: "ours".to_owned() };
        words.encode(StreamId::CHANNEL, &mut close);
        link.write_all(&close).await.unwrap();
        let code = CloseCode::INTERNAL;
        let expected = EndReason::ClosedByPeer { code, text: "ours".to_owned() };
        assert_eq!(point.ended().await, expected);
    });
}

/// A connection point that the test plays, and the instance that it talks to.
struct Played {
    pki: Rc<Pki>,
    address: SocketAddr,
    instance: Channel,
    link: client::TlsStream<TcpStream>,
    agreed: HelloOk,
}

impl Played {
    async fn new(test: &str) -> Self {
        Self::sharing(test, Arc::default()).await
    }

    async fn sharing(test: &str, ledger: Arc<Ledger>) -> Self {
        let pki = Rc::new(Pki::new(test));
        let (listener, address) = listener();
        let mut started = accept_all(&pki, listener, ledger);
        let mut link = dial(&pki, address, "point").await;
        let hello = Hello { limits: Limits::default(), instance: 0, ordinal: 0, boot_id: [1; 16] };
        link.write_all(&hello.encode()).await.unwrap();
        let (_, body) = read_frame(&mut link).await.unwrap();
        let agreed = HelloOk::decode(&body).unwrap();
        let instance = started.recv().await.unwrap();
        Self { pki, address, instance, link, agreed }
    }

    /// Sees that the channel is still on its first link; how many bytes that took.
    async fn is_undisturbed(&mut self) -> u64 {
        let open = frame(kind::OPEN, 0, 1, b"\x01\0\0\0undisturbed");
        self.link.write_all(&open).await.unwrap();
        let mut incoming = self.instance.accept().await.unwrap();
        assert_eq!(incoming.recv.chunk().await.unwrap().unwrap().data, &b"undisturbed"[..]);
        assert_eq!(self.instance.stats().resumes, 0);
        open.len() as u64
    }

    /// A new link and the RESUME that is right for it.
    async fn claim(&self, who: &str, claim: Claim) -> (client::TlsStream<TcpStream>, Resume) {
        let link = dial(&self.pki, self.address, who).await;
        let channel_id = self.agreed.channel_id;
        let mut resume = Resume { channel_id, claim, nonce: [7; 8], proof: [0; 32] };
        resume.proof = proof(&resume, &self.agreed.secret, &link);
        (link, resume)
    }

    /// Sends one RESUME over a new link, changed by `change`; what the instance answers.
    async fn ask(
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

async fn dial(pki: &Pki, address: SocketAddr, who: &str) -> client::TlsStream<TcpStream> {
    let socket = TcpStream::connect(address).await.unwrap();
    let name = server_name("localhost", "server_name").unwrap();
    TlsConnector::from(pki.dialer(who)).connect(name, socket).await.unwrap()
}

/// The proof of a RESUME as the document has it.
fn proof(resume: &Resume, secret: &Secret, link: &client::TlsStream<TcpStream>) -> [u8; 32] {
    let exporter = link.get_ref().1;
    let exporter = exporter.export_keying_material([0; 32], b"EXPORTER-cmgmux-resume", None);
    let frame = resume.encode();
    let body = &frame[HEADER_BYTES..];
    let message = [b"cmgmux resume v1", &body[..body.len() - 32], &exporter.unwrap()].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret.0), &message);
    tag.as_ref().try_into().unwrap()
}

const FIRST: Claim = Claim { epoch: 1, rx_pos: 0, tx_first: 0 };

// R-RESUME-11, R-RESUME-15
#[test]
fn j4_the_right_proof_under_the_certificate_of_another_connection_point_is_refused() {
    run(async {
        let mut played = Played::new("another").await;
        for _ in 0..2 {
            let (mut link, answer) = played.ask("colleague", FIRST, |_| {}).await;
            assert_eq!(answer, Resumed::refusal(FIRST.epoch, ResumeCode::UNKNOWN_CHANNEL));
            assert!(read_frame(&mut link).await.is_none());
        }
        played.is_undisturbed().await;
        let (_, answer) = played.ask("point", FIRST, |_| {}).await;
        assert_eq!(answer.code, ResumeCode::ACCEPTED, "the same under its own");
    });
}

// R-RESUME-11, R-RESUME-15
#[test]
fn j3_a_resume_with_anything_changed_is_refused_and_disturbs_nothing() {
    run(async {
        let mut played = Played::new("changed").await;
        let changes: [fn(&mut Resume); 6] = [
            |resume| resume.channel_id[15] ^= 1,
            |resume| resume.claim.epoch += 1,
            |resume| resume.claim.rx_pos += 1,
            |resume| resume.claim.tx_first += 1,
            |resume| resume.nonce[0] ^= 0x80,
            |resume| resume.proof[31] ^= 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let (mut link, answer) = played.ask("point", FIRST, change).await;
            let expected = Resumed::refusal(answer.epoch, ResumeCode::UNKNOWN_CHANNEL);
            assert_eq!(answer, expected, "change {number}");
            assert!(read_frame(&mut link).await.is_none());
        }
        let (_, of_another_link) = played.claim("point", FIRST).await;
        let (_, answer) = played.ask("point", FIRST, |resume| *resume = of_another_link).await;
        assert_eq!(answer.code, ResumeCode::UNKNOWN_CHANNEL, "a proof of another link");
        let position = played.is_undisturbed().await;
        let (_link, answer) = played.ask("point", FIRST, |_| {}).await;
        assert_eq!((answer.code, answer.epoch), (ResumeCode::ACCEPTED, 1));
        assert_eq!(answer.rx_pos, position);
    });
}

// R-RESUME-3, R-RESUME-4
#[test]
fn j5_an_accepted_claim_fences_the_old_link_between_two_frames() {
    run(async {
        let mut played = Played::new("fenced").await;
        let open = frame(kind::OPEN, 0, 1, b"\x01\0\0\0whole");
        let late = frame(kind::DATA, FIN, 1, b"late");
        played.link.write_all(&[&open[..], &late[..10]].concat()).await.unwrap();
        let mut incoming = played.instance.accept().await.unwrap();
        assert_eq!(incoming.recv.chunk().await.unwrap().unwrap().data, &b"whole"[..]);
        let (mut link, answer) = played.ask("point", FIRST, |_| {}).await;
        assert_eq!((answer.code, answer.rx_pos), (ResumeCode::ACCEPTED, open.len() as u64));
        // The old link may be closed before it takes this.
        let _ = played.link.write_all(&late[10..]).await;
        assert!(
            read_frame(&mut played.link).await.is_none_or(|(header, _)| header.kind == kind::ACK)
        );
        let (_, stale) = played.ask("point", FIRST, |_| {}).await;
        assert_eq!(stale, Resumed::refusal(1, ResumeCode::STALE_EPOCH));
        link.write_all(&frame(kind::DATA, FIN, 1, b"again")).await.unwrap();
        assert_eq!(incoming.recv.chunk().await.unwrap().unwrap().data, &b"again"[..]);
        assert_eq!(incoming.recv.chunk().await, Ok(None));
    });
}

// R-RESUME-18
#[test]
fn j7_channels_without_a_link_share_an_account_and_the_oldest_gives_way() {
    run(async {
        let ledger = Arc::new(Ledger::new(70_000));
        let mut cut = Vec::new();
        for number in 0..3 {
            let mut played = Played::sharing(&format!("crowd-{number}"), Arc::clone(&ledger)).await;
            let (mut send, recv) = played.instance.try_open(StreamKind::Exchange).unwrap();
            send.send(vec![7; 30_000].into(), End::None).unwrap();
            // It is sent, and not acknowledged.
            assert_eq!(read_frame(&mut played.link).await.unwrap().0.kind, kind::OPEN);
            played.link.shutdown().await.unwrap();
            assert_eq!(played.instance.needs_link().await.code(), "closed");
            cut.push((played, recv, send));
        }
        let (first, recv, _) = &mut cut[0];
        let reason = first.instance.ended().await;
        assert_eq!((reason.code(), ledger.channel_ends()["crowded"]), ("crowded".to_owned(), 1));
        assert_eq!(recv.chunk().await, Err(StreamError::ChannelLost(reason)));
        let kept = ledger.detached_bytes();
        assert!((60_000..70_000).contains(&kept), "{kept}");
        let (_, answer) = first.ask("point", FIRST, |_| {}).await;
        assert_eq!(answer.code, ResumeCode::UNKNOWN_CHANNEL);
        let mut links = Vec::new();
        for (played, ..) in &cut[1..] {
            let (link, answer) = played.ask("point", FIRST, |_| {}).await;
            assert_eq!(answer.code, ResumeCode::ACCEPTED);
            links.push(link);
        }
        assert_eq!((ledger.detached_bytes(), ledger.link_losses()["closed"]), (0, 3));
    });
}

// R-RESUME-9
#[test]
fn j6_a_claim_of_what_never_was_ends_the_channel_in_words() {
    run(async {
        let played = Played::new("never").await;
        let (mut link, mut resume) =
            played.claim("point", Claim { epoch: 1, rx_pos: 1, tx_first: 0 }).await;
        resume.proof = proof(&resume, &played.agreed.secret, &link);
        link.write_all(&resume.encode()).await.unwrap();
        assert_eq!(last_word(&mut link).await, CloseCode::RESUME_RANGE);
        assert!(matches!(played.instance.ended().await, EndReason::Protocol(_)));
    });
}
