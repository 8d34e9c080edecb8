//! A channel that loses its link and gets no other in time.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmgmux_mux::{Claim, Resumed};
use cmgmux_net::{
    Channel, CloseCode, End, EndReason, Ledger, Limits, LinkLoss, OpenError, RecvStream,
    ResumeCode, SendStream, StreamError, StreamKind,
};
use tokio::io::AsyncWriteExt;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, advance, pause};

use crate::clock::in_no_time;
use crate::pair::World;
use crate::played::{Played, read_frame};
use crate::relay::{Cut, Relay};
use crate::world::{Pki, answer, listener, pattern, run, with_channel};

/// How long a channel waits for a link.
const WINDOW: Duration = Duration::from_secs(60);
/// Little beside it, and more than a busy machine takes between two looks at its clock.
const MOMENT: Duration = Duration::from_millis(500);
/// Streams that the connection point allows the instance.
const STREAMS: u32 = 4;

/// Who has heard what, in the order in which they did.
#[derive(Clone, Default)]
struct Heard(Rc<RefCell<Vec<(&'static str, StreamError)>>>);

impl Heard {
    /// Waits for the error of one half.
    fn await_error(&self, who: &'static str, error: impl Future<Output = StreamError> + 'static) {
        let Self(heard) = self.clone();
        spawn_local(async move {
            let error = error.await;
            heard.borrow_mut().push((who, error));
        });
    }
}

/// The error that the reader sees in place of a piece.
async fn read_error(mut recv: RecvStream) -> StreamError {
    recv.chunk().await.unwrap_err()
}

/// What is there to be read, and the error behind it if it is not all.
async fn read_rest(recv: &mut RecvStream) -> (Vec<u8>, Option<StreamError>) {
    let mut all = Vec::new();
    loop {
        match recv.chunk().await {
            Ok(Some(chunk)) => all.extend_from_slice(&chunk.data),
            Ok(None) => return (all, None),
            Err(error) => return (all, Some(error)),
        }
    }
}

/// Writes until there is no room, and on for as long as there is.
async fn write_error(mut send: SendStream) -> StreamError {
    loop {
        if let Err(error) = send.write(pattern(8_192, 0), End::None).await {
            return error;
        }
    }
}

async fn broken(mut send: SendStream) -> StreamError {
    poll_fn(|cx| send.poll_broken(cx)).await
}

/// Opens as soon as there is a ticket.
async fn open_error(channel: Channel) -> OpenError {
    loop {
        let possible = channel.opens_possible();
        match channel.try_open(StreamKind::Exchange) {
            Ok(_) => panic!("there is a ticket"),
            Err(OpenError::NoTicket | OpenError::Detached) => possible.await,
            Err(error) => return error,
        }
    }
}

/// Opens a stream at one end of a channel and takes it at the other.
async fn open(opener: &Channel, acceptor: &Channel) -> [(SendStream, RecvStream); 2] {
    let (mut send, recv) = opener.try_open(StreamKind::Exchange).unwrap();
    send.send(Bytes::from_static(b"x"), End::None).unwrap();
    let mut taken = acceptor.accept().await.unwrap();
    assert_eq!(taken.recv.chunk().await.unwrap().unwrap().data, b"x"[..]);
    [(send, recv), (taken.send, taken.recv)]
}

// R-RESUME-13, R-CLOSE-2
#[test]
fn j8_without_a_link_for_longer_than_the_window_every_handle_hears_of_it_once_and_nothing_is_left()
{
    run(async {
        let pki = Pki::new("lost");
        let (listener, address) = listener();
        let relay = Relay::to(address);
        let limits = Limits { max_streams: STREAMS, ..Limits::default() };
        let dialling = pki.dial_allowing(relay.address, "point", limits);
        let (agreed, accepted) = tokio::join!(dialling, answer(&pki, &listener));
        let ledger = Arc::new(Ledger::default());
        let [(point, point_driver), (instance, instance_driver)] =
            [agreed, accepted].map(|agreed| Channel::start(agreed.unwrap(), &ledger).unwrap());
        let drivers = [spawn_local(point_driver), spawn_local(instance_driver)];

        let heard = Heard::default();
        // Both ends of a stream wait to read.
        let [opened, taken] = open(&instance, &point).await;
        heard.await_error("reader that opened", read_error(opened.1));
        heard.await_error("reader that took", read_error(taken.1));
        heard.await_error("sender that opened", broken(opened.0));
        heard.await_error("sender that took", broken(taken.0));
        // One end waits for room, and the other has not read.
        let [opened, taken] = open(&instance, &point).await;
        heard.await_error("writer without room", write_error(opened.0));
        let (mut unread, others) = (taken.1, (taken.0, opened.1));
        // One end has said everything and waits, and the other has not read.
        let [mut opened, taken] = open(&instance, &point).await;
        opened.0.write(pattern(20_000, 1), End::Stream).await.unwrap();
        heard.await_error("sender that has finished", broken(opened.0));
        heard.await_error("reader of an answer", read_error(opened.1));
        let (mut whole, answerer) = (taken.1, taken.0);
        // Nobody looks at either end.
        let [mut idle, mut idle_taken] = open(&instance, &point).await;
        let opener = spawn_local(open_error(instance.clone()));
        let acceptor = spawn_local({
            let instance = instance.clone();
            async move { instance.accept().await.is_none() }
        });
        while instance.stats().ring_bytes > 0 || point.stats().unread_bytes < 50_000 {
            yield_now().await;
        }
        assert_eq!(instance.try_open(StreamKind::Exchange).unwrap_err(), OpenError::NoTicket);

        relay.cut(Cut::Fin);
        for end in [&point, &instance] {
            assert_eq!(end.needs_link().await, LinkLoss::Closed);
        }
        pause();
        let waited = [&point, &instance].map(|end| end.outage().unwrap());
        let since = Instant::now() - waited[0].max(waited[1]);
        // What is written now is kept.
        idle.0.send(Bytes::from_static(b"kept"), End::None).unwrap();
        advance(WINDOW - MOMENT - since.elapsed()).await;
        in_no_time(async {
            for _ in 0..100 {
                yield_now().await;
            }
        })
        .await;
        assert!(heard.0.borrow().is_empty(), "{:?}", heard.0.borrow());
        assert!(!opener.is_finished() && !acceptor.is_finished());
        assert!(point.outage().is_some() && instance.outage().is_some());
        assert!(ledger.channel_ends().is_empty());

        let reason = EndReason::LinkLost(LinkLoss::Closed);
        for driver in drivers {
            assert_eq!(driver.await.unwrap(), reason);
        }
        let waited = since.elapsed();
        assert!((WINDOW - MOMENT..WINDOW + MOMENT).contains(&waited), "{waited:?}");
        for end in [&point, &instance] {
            assert_eq!((end.ended().await, end.outage()), (reason.clone(), None));
            assert!(end.accept().await.is_none());
            assert_eq!(end.try_open(StreamKind::Control).unwrap_err(), OpenError::Lost);
        }
        assert_eq!((opener.await.unwrap(), acceptor.await.unwrap()), (OpenError::Lost, true));

        let error = StreamError::ChannelLost(reason);
        while heard.0.borrow().len() < 7 {
            yield_now().await;
        }
        let mut heard = heard.0.take();
        heard.sort_by_key(|(who, _)| *who);
        let expected = [
            "reader of an answer",
            "reader that opened",
            "reader that took",
            "sender that has finished",
            "sender that opened",
            "sender that took",
            "writer without room",
        ];
        assert_eq!(heard, expected.map(|who| (who, error.clone())));
        // Who has not looked yet hears the same, as often as it looks, behind what has arrived.
        for _ in 0..2 {
            for (send, recv) in [&mut idle, &mut idle_taken] {
                assert_eq!(send.ready().await, Err(error.clone()));
                assert_eq!(recv.chunk().await, Err(error.clone()));
            }
        }
        let (read, end) = read_rest(&mut unread).await;
        assert!(read.len() > 30_000 && end == Some(error), "{} bytes, {end:?}", read.len());
        assert!(read.chunks(8_192).all(|piece| piece == &pattern(8_192, 0)[..piece.len()]));
        assert!(read_rest(&mut whole).await == (pattern(20_000, 1).to_vec(), None));

        drop((idle, idle_taken, unread, others, whole, answerer));
        assert_eq!(ledger.channel_ends(), [("link_lost".to_owned(), 2)].into());
        assert_eq!(ledger.link_losses(), [("closed".to_owned(), 2)].into());
        assert_eq!(ledger.detached_bytes(), 0);
        for end in [&point, &instance] {
            assert_eq!(end.stats().handles, 0, "{:?}", end.stats());
        }
        drop((point, instance));
        assert_eq!(Arc::strong_count(&ledger), 1, "an end is left");
    });
}

// R-RESUME-13
#[test]
fn j8_a_resume_just_before_the_end_of_the_window_goes_on_as_if_nothing_had_happened() {
    run(async {
        let world = World::new("before").await;
        let [mut opened, mut taken] = open(&world.instance, &world.point).await;
        world.relay.cut(Cut::Fin);
        world.point.needs_link().await;
        world.instance.needs_link().await;
        pause();
        let waited = world.point.outage().max(world.instance.outage()).unwrap();
        advance(WINDOW - MOMENT - waited).await;
        in_no_time(async {
            opened.0.write(pattern(20_000, 1), End::Stream).await.unwrap();
            world.resume().await.unwrap();
            world.wait_resumed(1).await;
        })
        .await;
        // The time that was left is over.
        advance(WINDOW).await;
        in_no_time(async {
            assert!(read_rest(&mut taken.1).await == (pattern(20_000, 1).to_vec(), None));
        })
        .await;
        assert!(world.ledger.channel_ends().is_empty());
    });
}

// R-RESUME-11, R-RESUME-13, R-RESUME-15
#[test]
fn j8_a_resume_just_after_the_end_of_the_window_is_refused_and_disturbs_nothing() {
    run(async {
        let ledger = Arc::new(Ledger::default());
        let mut played = Played::sharing("after", Arc::clone(&ledger)).await;
        let position = played.is_undisturbed().await;
        let claim = |epoch| Claim { epoch, rx_pos: 0, tx_first: position };
        played.link.shutdown().await.unwrap();
        played.instance.needs_link().await;
        pause();
        let reason = EndReason::LinkLost(LinkLoss::Closed);
        assert_eq!(played.instance.ended().await, reason);
        in_no_time(async {
            let (mut link, answer) = played.ask("point", claim(1), |_| {}).await;
            assert_eq!(answer, Resumed::refusal(1, ResumeCode::UNKNOWN_CHANNEL));
            assert!(read_frame(&mut link).await.is_none());
            drop(link);
            assert_eq!(played.instance.ended().await, reason);
            // The connection point has another channel, and asks for the lost one beside it.
            let lost = played.agreed;
            played.greet().await;
            let found = std::mem::replace(&mut played.agreed, lost);
            let (_, answer) = played.ask("point", claim(2), |_| {}).await;
            assert_eq!(answer, Resumed::refusal(2, ResumeCode::UNKNOWN_CHANNEL));
            played.agreed = found;
            let position = played.is_undisturbed().await;
            let (_, answer) = played.ask("point", claim(1), |_| {}).await;
            assert_eq!((answer.code, answer.rx_pos), (ResumeCode::ACCEPTED, position));
        })
        .await;
        assert_eq!(ledger.channel_ends(), [("link_lost".to_owned(), 1)].into());
    });
}

#[test]
fn streams_that_nobody_has_taken_are_forgotten_with_their_channel() {
    with_channel("untaken", |point, instance| async move {
        let (mut send, _recv) = instance.try_open(StreamKind::Exchange).unwrap();
        send.send(pattern(30_000, 0), End::Part).unwrap();
        while point.stats().handles == 0 {
            yield_now().await;
        }
        instance.close(CloseCode::INTERNAL, "planned by the test");
        point.ended().await;
        assert!(point.accept().await.is_none());
        let stats = point.stats();
        assert_eq!((stats.handles, stats.streams, stats.streams_total), (0, 0, 1), "{stats:?}");
    });
}
