//! Rules of `docs/protocol.md` about the link, with an instance that the test plays over real TLS.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use cmgmux_mux::frame::{Control, EOM, FIN, HEADER_BYTES, Header, kind};
use cmgmux_mux::{HelloOk, Secret, StreamId};
use cmgmux_net::pki::{Authority, PemPair};
use cmgmux_net::tls::{
    Credentials, FileSetting, Trust, TrustedCa, channel_acceptor, channel_dialer, load_roots,
    server_name,
};
use cmgmux_net::{Channel, CloseCode, EndReason, Hello, Limits, greet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Far beyond what anything here takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// A connection point's channel, and the instance's end of its link, where HELLO has been read and
/// `first` was sent behind HELLO_OK.
async fn connect(test: &str, first: &[u8]) -> (Channel, TlsStream<TcpStream>) {
    let folder = std::env::temp_dir().join(format!("cmgmux-rules-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let credentials = |pair: &PemPair| {
        let (certificate, key) = (write("one.pem", &pair.certificate), write("one.key", &pair.key));
        Credentials::load(
            FileSetting::new("certificate", &certificate),
            FileSetting::new("key", &key),
        )
        .unwrap()
    };
    let ca = Authority::create("both", 30).unwrap();
    let ca_file = write("ca.pem", &ca.pem().certificate);
    let sites = vec!["NYC".to_owned()];
    let trust = Trust::load(&[TrustedCa { ca: ca_file.clone(), sites }]).unwrap();
    let server = credentials(&ca.issue_server(&["localhost"]).unwrap());
    let acceptor = TlsAcceptor::from(channel_acceptor(&server, &trust));
    let roots = load_roots(FileSetting::new("gateway_ca", &ca_file)).unwrap();
    let point = credentials(&ca.issue_connection_point("NYC", "cp1").unwrap());
    let dialer = channel_dialer(&point, roots);
    std::fs::remove_dir_all(&folder).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let name = server_name("localhost", "server_name").unwrap();
    let hello = Hello { limits: Limits::default(), instance: 0, ordinal: 0, boot_id: [1; 16] };
    let dialling = greet(socket, Arc::clone(&dialer), name, hello);
    let accepting = async {
        let (socket, _) = listener.accept().await.unwrap();
        let mut link = acceptor.accept(socket).await.unwrap();
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
    let (established, link) = tokio::join!(dialling, accepting);
    let (channel, driver) = Channel::start(established.unwrap()).unwrap();
    tokio::task::spawn_local(driver);
    (channel, link)
}

/// The next frame; nothing once the other end has closed the link.
async fn read_frame(link: &mut TlsStream<TcpStream>) -> Option<(Header, Vec<u8>)> {
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

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { timeout(DEADLINE, test).await.expect("in time") });
}

/// The code of the CLOSE that is the last frame on the link.
async fn last_word(link: &mut TlsStream<TcpStream>) -> CloseCode {
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

// R-HELLO-7
#[test]
fn what_comes_right_behind_hello_ok_is_applied() {
    run(async {
        let open = frame(kind::OPEN, FIN | EOM, 1 << 31 | 1, b"\x01\0\0\0early");
        let (point, _link) = connect("early", &open).await;
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
            (frame(kind::DATA, 0, 1 << 31 | 7, b"nowhere"), CloseCode::STREAM_STATE),
            (frame(kind::HELLO, 0, 0, b""), CloseCode::UNKNOWN_FRAME),
        ]
        .into_iter()
        .enumerate()
        {
            let (point, mut link) = connect(&format!("broken-{number}"), &bytes).await;
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
        let (point, mut link) = connect("close", &[]).await;
        let (mut send, mut recv) = point.try_open(cmgmux_net::StreamKind::Exchange).unwrap();
        send.send(b"asked".as_slice().into(), cmgmux_net::End::None).unwrap();
        let (header, _) = read_frame(&mut link).await.unwrap();
        assert_eq!(header.kind, kind::OPEN);
        point.close(CloseCode::INTERNAL, "by the test");
        assert_eq!(last_word(&mut link).await, CloseCode::INTERNAL);
        recv.chunk().await.unwrap_err();

        let (point, mut link) = connect("closed", &[]).await;
        let mut close = BytesMut::new();
        let words = Control::Close { code: 14, text: "ours".to_owned() };
        words.encode(StreamId::CHANNEL, &mut close);
        link.write_all(&close).await.unwrap();
        let code = CloseCode::INTERNAL;
        let expected = EndReason::ClosedByPeer { code, text: "ours".to_owned() };
        assert_eq!(point.ended().await, expected);
    });
}
