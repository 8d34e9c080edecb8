//! How often a driver looks at its channel: when something has happened, and not in between.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use cmgmux_net::{Channel, End, EndReason, RecvStream, SendStream, StreamKind};
use tokio::task::{JoinHandle, spawn_local, yield_now};
use tokio::time::pause;

use crate::clock::{TURNS, as_time_passes, pass};
use crate::endings::undriven;
use crate::world::{Pki, answer, listener, pattern, run};

/// After which silence a link is probed.
const PROBE: Duration = Duration::from_secs(15);
/// Things that happen to a channel, one after the other.
const EVENTS: usize = 40;
/// Time between two of them.
const EVERY: Duration = Duration::from_millis(50);

/// Polls of a driver.
#[derive(Clone, Default)]
struct Polls(Rc<Cell<usize>>);

impl Polls {
    /// Runs `driver` and counts.
    fn count(&self, driver: impl Future<Output = EndReason> + 'static) -> JoinHandle<EndReason> {
        let Self(polls) = self.clone();
        spawn_local(async move {
            let mut driver = pin!(driver);
            poll_fn(|cx| {
                polls.set(polls.get() + 1);
                driver.as_mut().poll(cx)
            })
            .await
        })
    }

    /// How many there have been since the last call.
    fn take(&self) -> usize {
        self.0.take()
    }
}

/// Opens a stream and writes for as long as there is room or could be.
async fn fill(channel: &Channel) -> (SendStream, RecvStream) {
    let (mut send, recv) = channel.try_open(StreamKind::Exchange).unwrap();
    let mut turns = 0;
    while turns < TURNS {
        turns += 1;
        if poll_fn(|cx| Poll::Ready(send.poll_ready(cx).is_ready())).await {
            send.send(pattern(8_192, 0), End::None).unwrap();
            turns = 0;
        }
        yield_now().await;
    }
    (send, recv)
}

#[test]
fn drivers_of_sleeping_streams_look_when_they_probe_and_not_in_between() {
    run(async {
        let pki = Pki::new("sleeping");
        let (listener, address) = listener();
        let agreed = tokio::join!(pki.dial(address, "point"), answer(&pki, &listener));
        let [(point, polls, point_driver), (instance, others, instance_driver)] =
            [agreed.0, agreed.1].map(|agreed| {
                let (channel, driver) = Channel::start(agreed.unwrap(), &Arc::default()).unwrap();
                let polls = Polls::default();
                let driver = polls.count(driver);
                (channel, polls, driver)
            });
        // Some wait to be read, and some to read.
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push((fill(&instance).await, point.accept().await.unwrap()));
        }
        for _ in 0..500 {
            let (mut send, recv) = instance.try_open(StreamKind::Exchange).unwrap();
            send.write(Bytes::from_static(b"poll"), End::Stream).await.unwrap();
            held.push(((send, recv), point.accept().await.unwrap()));
        }
        for (_, taken) in &mut held[20..] {
            while taken.recv.chunk().await.unwrap().is_some() {}
        }
        while instance.stats().ring_bytes + point.stats().ring_bytes > 0 {
            yield_now().await;
        }
        pause();
        for polls in [&polls, &others] {
            assert!(polls.take() >= 20, "they are counted");
        }
        pass(8 * PROBE).await;
        for polls in [&polls, &others] {
            let polls = polls.take();
            assert!((8..=8 * 8).contains(&polls), "{polls} polls for 8 probes at each end");
        }
        assert!(!point_driver.is_finished() && !instance_driver.is_finished());
        assert_eq!((point.outage(), instance.outage()), (None, None));
    });
}

#[test]
fn a_driver_whose_peer_reads_nothing_or_is_gone_looks_once_an_event() {
    run(async {
        let (instance, driver, link) = undriven("unread", 4_096).await;
        let polls = Polls::default();
        let driver = polls.count(driver);
        // The fill takes no time, so that the link is not found dead before its time.
        pause();
        let mut held = Vec::new();
        for _ in 0..2 * EVENTS {
            held.push(fill(&instance).await);
        }
        assert!(polls.take() >= held.len(), "they are counted");
        // The kernel takes nothing, and there is more than enough to write.
        assert!(instance.stats().queued_bytes > 1 << 20);
        for _ in 0..EVENTS {
            held.pop();
            pass(EVERY).await;
        }
        assert_eq!(instance.outage(), None);
        let polled = polls.take();
        // What is overdue because nothing can be written is looked at every 25 ms.
        assert!((EVENTS..=4 * EVENTS).contains(&polled), "{polled} polls for {EVENTS} events");

        as_time_passes(instance.needs_link()).await;
        polls.take();
        for _ in 0..EVENTS {
            held.pop();
            pass(EVERY).await;
        }
        let polled = polls.take();
        assert!((EVENTS..=2 * EVENTS).contains(&polled), "{polled} polls for {EVENTS} events");
        as_time_passes(driver).await.unwrap();
        let polled = polls.take();
        assert!(polled <= 10, "{polled} polls in a minute without a link");
        drop(link);
    });
}
