//! The way from any thread to one event loop: a queue, and a socket pair that wakes the loop.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::event::{Event, ServiceEvent};
use crate::log::ring::LogRing;

/// Events for one event loop.
///
/// One byte lies in the socket exactly while there may be something to take: the first event
/// after an empty batch writes it, the take that leaves nothing behind reads it. However many
/// events arrive in between, the loop is woken once.
///
/// The queue is bounded by its writers: a service posts two events in its life, and log records
/// stay in the [`LogRing`] until they are taken.
#[derive(Debug)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    wake: UnixStream,
    woken: UnixStream,
    logs: Arc<LogRing>,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<ServiceEvent>,
    /// The byte lies in the socket.
    signalled: bool,
    /// Bytes written so far.
    wakeups: u64,
    closed: bool,
}

impl Mailbox {
    /// An empty mailbox that also delivers the records of `logs`, as long as no older open mailbox
    /// does.
    ///
    /// # Errors
    ///
    /// The error of the operating system if it has no descriptors left.
    pub(crate) fn open(logs: Arc<LogRing>) -> io::Result<Arc<Self>> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let mailbox = Arc::new(Self { state: Mutex::default(), wake, woken, logs });
        mailbox.logs.add_reader(&mailbox);
        Ok(mailbox)
    }

    /// The descriptor that is readable while there may be something to take.
    pub(crate) fn fd(&self) -> RawFd {
        self.woken.as_raw_fd()
    }

    /// How often the loop was woken.
    pub(crate) fn wakeups(&self) -> u64 {
        self.state.lock().wakeups
    }

    /// Delivers `event`; after [`close`](Self::close) there is nobody to deliver it to.
    pub(crate) fn post(&self, event: ServiceEvent) {
        let mut state = self.state.lock();
        if !state.closed {
            state.events.push_back(event);
            self.signal(&mut state);
        }
    }

    /// Has the loop come and look, because the log has records.
    pub(crate) fn notify(&self) {
        let mut state = self.state.lock();
        if !state.closed {
            self.signal(&mut state);
        }
    }

    /// Takes up to `max` items: events of services first, then log records.
    ///
    /// While more is left the descriptor stays readable, so the loop comes back by itself after
    /// having served others.
    pub(crate) fn take(self: &Arc<Self>, max: usize) -> Vec<Event> {
        let mut state = self.state.lock();
        let count = state.events.len().min(max);
        let mut batch: Vec<Event> = state.events.drain(..count).map(Event::Service).collect();
        // A record that comes after this look waits for our lock before it signals.
        let logs_left = self.logs.take(self, max - batch.len(), &mut batch);
        if state.signalled && state.events.is_empty() && !logs_left {
            state.signalled = false;
            let mut byte = [0];
            // It can only fail by being empty, and then there is nothing to take away.
            let _ = (&self.woken).read(&mut byte);
        }
        batch
    }

    /// Delivers nothing more, and leaves the log to the next mailbox.
    pub(crate) fn close(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.closed = true;
        state.events.clear();
        drop(state);
        self.logs.remove_reader(self);
    }

    /// Whether [`close`](Self::close) was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    fn signal(&self, state: &mut State) {
        if !state.signalled {
            state.signalled = true;
            state.wakeups += 1;
            // One byte always fits: there is at most one in the socket.
            let _ = (&self.wake).write(&[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::log::ring::tests::record;

    /// How many bytes lie in the socket; they are gone afterwards.
    fn bytes_waiting(mailbox: &Mailbox) -> usize {
        match (&mailbox.woken).read(&mut [0; 16]) {
            Ok(count) => count,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                0
            }
        }
    }

    fn mailbox() -> Arc<Mailbox> {
        Mailbox::open(Arc::new(LogRing::new(8))).unwrap()
    }

    #[test]
    fn many_events_wake_the_loop_once() {
        let mailbox = mailbox();
        for service in 0..5 {
            mailbox.post(ServiceEvent::started(service));
        }
        mailbox.logs.push(record("a line"));
        assert_eq!(mailbox.wakeups(), 1);
        assert_eq!(bytes_waiting(&mailbox), 1);
    }

    #[test]
    fn the_descriptor_stays_readable_until_everything_is_taken() {
        let mailbox = mailbox();
        for service in 0..3 {
            mailbox.post(ServiceEvent::started(service));
        }
        assert_eq!(mailbox.take(2).len(), 2);
        assert_eq!(mailbox.wakeups(), 1);
        assert!(mailbox.state.lock().signalled);
        assert_eq!(mailbox.take(2), [Event::Service(ServiceEvent::started(2))]);
        assert_eq!(bytes_waiting(&mailbox), 0);
        mailbox.post(ServiceEvent::ended(2, None));
        assert_eq!(bytes_waiting(&mailbox), 1);
    }

    #[test]
    fn records_that_are_left_keep_the_descriptor_readable() {
        let mailbox = mailbox();
        mailbox.logs.push(record("first"));
        mailbox.logs.push(record("second"));
        assert_eq!(mailbox.take(1).len(), 1);
        assert_eq!(bytes_waiting(&mailbox), 1);
    }

    #[test]
    fn a_batch_that_takes_exactly_the_rest_leaves_no_byte() {
        let mailbox = mailbox();
        mailbox.logs.push(record("a line"));
        assert_eq!(mailbox.take(1).len(), 1);
        assert_eq!(bytes_waiting(&mailbox), 0);
    }

    #[test]
    fn taking_from_an_empty_mailbox_gives_nothing() {
        assert_eq!(mailbox().take(10), []);
    }

    #[test]
    fn a_closed_mailbox_takes_no_more_events() {
        let mailbox = mailbox();
        mailbox.close();
        mailbox.post(ServiceEvent::started(1));
        assert_eq!(mailbox.take(10), []);
        assert_eq!(bytes_waiting(&mailbox), 0);
    }

    #[test]
    fn no_event_and_no_wakeup_is_lost_between_threads() {
        const EACH: u64 = 2_000;
        let mailbox = mailbox();
        let producers: Vec<_> = (0..4)
            .map(|producer| {
                let mailbox = Arc::clone(&mailbox);
                thread::spawn(move || {
                    for event in 0..EACH {
                        mailbox.post(ServiceEvent::started(producer * EACH + event));
                    }
                })
            })
            .collect();
        let mut taken = 0;
        while producers.iter().any(|producer| !producer.is_finished()) {
            taken += mailbox.take(7).len();
        }
        for producer in producers {
            producer.join().unwrap();
        }
        // Quiet now: what is left must have its byte, and nothing else may.
        let left = mailbox.state.lock().events.len();
        assert_eq!(mailbox.state.lock().signalled, left > 0);
        taken += mailbox.take(usize::MAX).len();
        assert_eq!(taken, 4 * usize::try_from(EACH).unwrap());
        assert_eq!(bytes_waiting(&mailbox), 0);
    }
}
