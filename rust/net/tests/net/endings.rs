//! How the peer hears of a channel's end, and how an end is heard when the link breaks with it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use cmgmux_mux::frame::kind;
use cmgmux_net::{Channel, CloseCode, End, EndReason, StreamKind};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use crate::clock::in_no_time;
use crate::played::{close, dial_over, frame, hello, last_word, read_frame};
use crate::world::{Pki, answer, listener, run};

/// An instance's channel with its driver, which nobody polls yet, and the connection point's end of
/// its link, whose socket takes about `room` bytes before they are read.
pub(crate) async fn undriven(
    test: &str,
    room: u32,
) -> (Channel, impl Future<Output = EndReason> + use<>, TlsStream<TcpStream>) {
    let pki = Pki::new(test);
    let (listener, address) = listener();
    // Inherited by the sockets that it accepts: what is sent to them arrives whether it is read or not.
    SockRef::from(&listener).set_recv_buffer_size(1 << 20).unwrap();
    let dialling = async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(room).unwrap();
        socket.set_nodelay(true).unwrap();
        let socket = socket.connect(address).await.unwrap();
        let mut link = dial_over(socket, pki.dialer("point")).await;
        link.write_all(&hello()).await.unwrap();
        assert_eq!(read_frame(&mut link).await.unwrap().0.kind, kind::HELLO_OK);
        link
    };
    let (established, link) = tokio::join!(answer(&pki, &listener), dialling);
    let (channel, driver) = Channel::start(established.unwrap(), &Arc::default()).unwrap();
    (channel, driver, link)
}

// R-CLOSE-4
#[test]
fn a_last_word_arrives_at_a_peer_that_is_slow_and_goes_on_sending() {
    run(async {
        let (instance, driver, mut link) = undriven("slow", 4_096).await;
        // It lets go of the socket when it has ended, not with the test.
        let mut driver = Box::pin(driver);
        let (mut send, _recv) = instance.try_open(StreamKind::Exchange).unwrap();
        send.send(vec![7; 30_000].into(), End::None).unwrap();
        assert!(poll_once(driver.as_mut()).await.is_pending());
        instance.close(CloseCode::INTERNAL, "by the test");
        let peer = async {
            assert!(matches!(instance.ended().await, EndReason::Closed { .. }));
            for _ in 0..100 {
                link.write_all(&frame(kind::PING, 0, 0, &[7; 8])).await.unwrap();
            }
            assert_eq!(last_word(&mut link).await, CloseCode::INTERNAL);
            drop(link);
        };
        tokio::join!(driver, peer);
    });
}

#[test]
fn a_peer_that_neither_reads_nor_closes_holds_up_an_end_for_two_seconds_at_most() {
    for (number, streams) in [0, 8].into_iter().enumerate() {
        run(async {
            let (instance, driver, _link) = undriven(&format!("stays-{number}"), 4_096).await;
            let mut driver = pin!(driver);
            // More than the kernel takes, or nothing.
            let opened: Vec<_> = (0..streams)
                .map(|_| {
                    let (mut send, recv) = instance.try_open(StreamKind::Exchange).unwrap();
                    send.send(vec![7; 30_000].into(), End::None).unwrap();
                    (send, recv)
                })
                .collect();
            assert!(poll_once(driver.as_mut()).await.is_pending());
            instance.close(CloseCode::INTERNAL, "by the test");
            tokio::time::pause();
            let begun = Instant::now();
            assert!(matches!(driver.await, EndReason::Closed { .. }));
            assert!(begun.elapsed() <= Duration::from_secs(2), "{:?}", begun.elapsed());
            drop(opened);
        });
    }
}

// R-CLOSE-4
#[test]
fn a_peer_that_goes_on_sending_behind_an_end_is_cut_after_sixteen_mebibytes() {
    const READ: usize = 16 << 20;
    /// What the two sockets may hold, and more.
    const HELD: usize = 8 << 20;
    run(async {
        let (instance, driver, link) = undriven("endless", 65_536).await;
        let mut driver = Box::pin(driver);
        assert!(poll_once(driver.as_mut()).await.is_pending());
        instance.close(CloseCode::INTERNAL, "by the test");
        // Time stands still, so it is not time that cuts.
        tokio::time::pause();
        let ending = async {
            assert!(matches!(driver.await, EndReason::Closed { .. }));
        };
        let (mut socket, _) = link.into_inner();
        let sending = async move {
            let mut sent = 0;
            while sent <= READ + HELD {
                match socket.write(&[7; 64 * 1024]).await {
                    Ok(length) => sent += length,
                    Err(_) => break,
                }
            }
            sent
        };
        let ((), sent) = in_no_time(async { tokio::join!(ending, sending) }).await;
        assert!((READ..READ + HELD).contains(&sent), "{sent} bytes were taken");
    });
}

/// One look of the driver at everything that there is.
async fn poll_once<F: Future>(mut driver: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(driver.as_mut().poll(cx))).await
}

/// Drives the channel until all of `bytes` and a PING behind them have been read and answered.
async fn exchange(
    driver: Pin<&mut impl Future<Output = EndReason>>,
    link: &mut TlsStream<TcpStream>,
    bytes: &[u8],
) {
    let answered = async {
        link.write_all(bytes).await.unwrap();
        link.write_all(&frame(kind::PING, 0, 0, b"the last")).await.unwrap();
        link.flush().await.unwrap();
        while !read_frame(link).await.unwrap().1.starts_with(b"the last") {}
    };
    tokio::select! {
        reason = driver => panic!("{reason}"),
        () = answered => {}
    }
}

#[test]
fn a_last_word_counts_before_the_link_that_broke_behind_it() {
    run(async {
        let (_instance, driver, mut link) = undriven("broke", 65_536).await;
        let mut driver = pin!(driver);
        let ping = frame(kind::PING, 0, 0, &[7; 8]);
        // So much that the window that the socket announces has grown beyond what follows.
        exchange(driver.as_mut(), &mut link, &ping.repeat(20_000)).await;
        // More than is read before the answer fails.
        link.write_all(&ping.repeat(5_400)).await.unwrap();
        link.write_all(&close(CloseCode::INTERNAL, "planned by the test")).await.unwrap();
        link.flush().await.unwrap();
        SockRef::from(link.get_ref().0).set_linger(Some(Duration::ZERO)).unwrap();
        drop(link);
        let EndReason::ClosedByPeer { code, .. } = driver.await else { panic!() };
        assert_eq!(code, CloseCode::INTERNAL);
    });
}

#[test]
fn an_end_that_was_asked_for_is_not_forgotten_when_the_link_breaks_at_once() {
    run(async {
        let (instance, driver, mut link) = undriven("asked", 65_536).await;
        let mut driver = pin!(driver);
        exchange(driver.as_mut(), &mut link, &[]).await;
        drop(link);
        // The runtime hears of it; the driver, which this task polls, does not yet.
        tokio::task::yield_now().await;
        instance.close(CloseCode::SHUTDOWN, "by the test");
        assert!(matches!(driver.await, EndReason::Closed { code: CloseCode::SHUTDOWN, .. }));
    });
}
