//! Who has not shown who it is may send little, and has little time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use cmgmux_mux::frame::kind;
use cmgmux_net::tls::server_name;
use cmgmux_net::{Arrival, CloseCode, HANDSHAKE_TIMEOUT, HandshakeError};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::played::{dial, hello, last_word};
use crate::world::{Pki, arrival, listener, run};

/// What becomes of a link on which a stranger does `strange`; it is closed to the stranger as well.
async fn meet<T>(
    pki: &Pki,
    strange: impl AsyncFnOnce(SocketAddr) -> T,
) -> (Result<Arrival, HandshakeError>, T) {
    let (listener, address) = listener();
    tokio::join!(arrival(pki, &listener), strange(address))
}

fn noise(bytes: usize) -> Vec<u8> {
    std::iter::repeat_with(|| fastrand::u8(..)).take(bytes).collect()
}

// R-LINK-6
#[test]
fn i1_foreign_bytes_are_refused_and_their_connection_is_closed() {
    run(async {
        let pki = Pki::new("foreign");
        // A record of TLS whose length is beyond what is allowed.
        let record = [&[0x16, 3, 1, 0xff, 0xff][..], &noise(70_000)].concat();
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"SSH-2.0-x\r\n",
            &[0x16, 3, 1, 0, 5, 9, 9, 9, 9, 9],
            &[0; 100],
            &noise(4_096),
            &record,
        ] {
            let (refused, ()) = meet(&pki, async |address| {
                let mut socket = TcpStream::connect(address).await.unwrap();
                // The connection may be closed before all of it is taken.
                let _ = socket.write_all(bytes).await;
                let _ = socket.read_to_end(&mut Vec::new()).await;
            })
            .await;
            assert!(matches!(refused, Err(HandshakeError::Tls(_))), "{refused:?}");
        }
    });
}

// R-LINK-6
#[test]
fn i1_a_stranger_that_says_nothing_or_dribbles_has_five_seconds() {
    for pause in [None, Some(Duration::from_millis(500))] {
        run(async {
            tokio::time::pause();
            let pki = Pki::new("slow");
            let begun = Instant::now();
            let (refused, ()) = meet(&pki, async |address| {
                let mut socket = TcpStream::connect(address).await.unwrap();
                // The beginning of a record that would hold a ClientHello.
                for byte in [0x16, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3].into_iter().chain([0; 50]) {
                    let Some(pause) = pause else { break };
                    tokio::time::sleep(pause).await;
                    if socket.write_all(&[byte]).await.is_err() {
                        break;
                    }
                }
                let _ = socket.read_to_end(&mut Vec::new()).await;
            })
            .await;
            assert!(matches!(refused, Err(HandshakeError::Timeout { .. })), "{refused:?}");
            assert!(begun.elapsed() >= HANDSHAKE_TIMEOUT);
        });
    }
}

// R-LINK-6
#[test]
fn i1_a_tls_handshake_of_more_than_64_kib_is_refused() {
    run(async {
        let pki = Pki::new("long");
        let mut tls = ClientConfig::clone(&pki.dialer("endless"));
        tls.alpn_protocols.extend((0..200).map(|number| vec![number; 200]));
        let (refused, ()) = meet(&pki, async |address| {
            let mut link = dial(address, Arc::new(tls)).await;
            let _ = link.write_all(&hello()).await;
            let _ = link.read_to_end(&mut Vec::new()).await;
        })
        .await;
        assert!(matches!(refused, Err(HandshakeError::TooMuch)), "{refused:?}");
        assert_eq!(refused.unwrap_err().reason(), "too_much");
    });
}

// R-LINK-2
#[test]
fn i1_tls_of_another_protocol_is_told_so() {
    run(async {
        let pki = Pki::new("protocol");
        let mut tls = ClientConfig::clone(&pki.dialer("point"));
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (refused, told) = meet(&pki, async |address| {
            let socket = TcpStream::connect(address).await.unwrap();
            let name = server_name("localhost", "server_name").unwrap();
            TlsConnector::from(Arc::new(tls)).connect(name, socket).await.unwrap_err().to_string()
        })
        .await;
        assert!(matches!(refused, Err(HandshakeError::Tls(_))), "{refused:?}");
        assert!(told.contains("NoApplicationProtocol"), "{told}");
    });
}

// R-HELLO-1, R-HELLO-2, R-HELLO-11
#[test]
fn i1_foreign_bytes_in_tls_are_refused_with_their_code() {
    run(async {
        let pki = Pki::new("within");
        let ping = [&[8, 0, 0, kind::PING, 0, 0, 0, 0][..], &[7; 8]].concat();
        for (bytes, code) in [
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), CloseCode::FRAME_SIZE),
            (b"SSH-2.0-x\r\n".to_vec(), CloseCode::FRAME_SIZE),
            (vec![0xff; 20_000], CloseCode::FRAME_SIZE),
            (ping.clone(), CloseCode::UNKNOWN_FRAME),
            ([hello().to_vec(), ping.repeat(70)].concat(), CloseCode::FRAME_SIZE),
        ] {
            let (refused, said) = meet(&pki, async |address| {
                let mut link = dial(address, pki.dialer("point")).await;
                link.write_all(&bytes).await.unwrap();
                last_word(&mut link).await
            })
            .await;
            assert_eq!(said, code, "{refused:?}");
            assert!(matches!(refused, Err(HandshakeError::Protocol(_))), "{refused:?}");
        }
    });
}

/// The usual HELLO with another version, and with a value of a later one behind it if wanted.
fn hello_of(version: u16, has_unknown: bool) -> BytesMut {
    let mut hello = hello();
    let at = hello.windows(3).position(|bytes| bytes == [1, 2, 0]).unwrap() + 3;
    hello[at..at + 2].copy_from_slice(&version.to_le_bytes());
    if has_unknown {
        hello.extend_from_slice(&[0xee, 3, 0, b'n', b'e', b'w']);
        hello[0] += 6;
    }
    hello
}

// R-HELLO-4, R-HELLO-5
#[test]
fn i20_another_version_is_refused_and_an_unknown_value_is_not() {
    run(async {
        let pki = Pki::new("versions");
        for version in [0, 2, u16::MAX] {
            let (refused, said) = meet(&pki, async |address| {
                let mut link = dial(address, pki.dialer("point")).await;
                link.write_all(&hello_of(version, true)).await.unwrap();
                last_word(&mut link).await
            })
            .await;
            assert_eq!(said, CloseCode::VERSION, "{version}: {refused:?}");
        }
        let (accepted, _link) = meet(&pki, async |address| {
            let mut link = dial(address, pki.dialer("point")).await;
            link.write_all(&hello_of(1, true)).await.unwrap();
            link
        })
        .await;
        assert!(matches!(accepted, Ok(Arrival::Hello(_))), "{accepted:?}");
    });
}

#[test]
fn i1_a_certificate_alone_keeps_no_link_open() {
    run(async {
        let pki = Pki::new("mute");
        let (refused, ()) = meet(&pki, async |address| {
            let mut link = dial(address, pki.dialer("point")).await;
            link.write_all(&hello()[..20]).await.unwrap();
            tokio::time::pause();
            let _ = link.read_to_end(&mut Vec::new()).await;
        })
        .await;
        assert!(matches!(refused, Err(HandshakeError::Timeout { .. })), "{refused:?}");
    });
}
