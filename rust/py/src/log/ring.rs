//! The bounded queue of log records that wait for an event loop.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::event::{Event, FieldValue, LogRecord};
use crate::mailbox::Mailbox;

/// Log records of all services of the process, in order.
///
/// One mailbox at a time hands them out: the oldest that is open. Records that find the ring full
/// are counted instead, and one record reports their number once there is room. Half of the ring is
/// kept from debug records, so that a flood of them hides nothing that matters.
///
/// Lock order: a mailbox may hold its own lock while it takes from the ring, so the ring calls no
/// mailbox while it holds its own.
#[derive(Debug)]
pub(crate) struct LogRing {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    records: VecDeque<LogRecord>,
    dropped: u64,
    readers: VecDeque<Weak<Mailbox>>,
}

impl LogRing {
    /// An empty ring for `capacity` records.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, state: Mutex::default() }
    }

    /// Keeps `record`, or counts it if there is no room.
    pub(crate) fn push(&self, record: LogRecord) {
        let mut state = self.state.lock();
        let room = if record.level <= super::DEBUG { self.capacity / 2 } else { self.capacity };
        if state.records.len() >= room {
            state.dropped += 1;
            return;
        }
        state.report_dropped(record.time);
        let was_empty = state.records.is_empty();
        state.records.push_back(record);
        // While records wait, their reader has been told already.
        let reader = if was_empty { state.reader() } else { None };
        drop(state);
        if let Some(reader) = reader {
            reader.notify();
        }
    }

    /// Moves up to `max` records to `batch` if it is `reader`'s turn. True if more is left for it.
    pub(crate) fn take(&self, reader: &Arc<Mailbox>, max: usize, batch: &mut Vec<Event>) -> bool {
        let mut state = self.state.lock();
        if !state.reader().is_some_and(|first| Arc::ptr_eq(&first, reader)) {
            return false;
        }
        let count = state.records.len().min(max);
        batch.extend(state.records.drain(..count).map(Event::Log));
        if state.records.is_empty()
            && let Some(Event::Log(last)) = batch.last()
        {
            let time = last.time;
            state.report_dropped(time);
        }
        !state.records.is_empty()
    }

    /// Puts `mailbox` in line.
    pub(crate) fn add_reader(&self, mailbox: &Arc<Mailbox>) {
        self.state.lock().readers.push_back(Arc::downgrade(mailbox));
        self.notify_reader();
    }

    /// Takes `mailbox` out of the line and wakes the next.
    pub(crate) fn remove_reader(&self, mailbox: &Arc<Mailbox>) {
        self.state
            .lock()
            .readers
            .retain(|reader| reader.upgrade().is_some_and(|reader| !Arc::ptr_eq(&reader, mailbox)));
        self.notify_reader();
    }

    fn notify_reader(&self) {
        let mut state = self.state.lock();
        let reader = if state.records.is_empty() { None } else { state.reader() };
        drop(state);
        if let Some(reader) = reader {
            reader.notify();
        }
    }
}

impl State {
    /// The mailbox whose turn it is.
    fn reader(&mut self) -> Option<Arc<Mailbox>> {
        loop {
            let first = self.readers.front()?.upgrade();
            if first.is_some() {
                return first;
            }
            self.readers.pop_front();
        }
    }

    fn report_dropped(&mut self, time: f64) {
        if self.dropped > 0 {
            let dropped = FieldValue::Int(self.dropped.into());
            self.records.push_back(LogRecord {
                level: super::WARN,
                target: module_path!().replace("_native", "cmgmux_py"),
                message: "dropped log records because nobody took them".to_owned(),
                fields: BTreeMap::from([("dropped".to_owned(), dropped)]),
                time,
            });
            self.dropped = 0;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A record that says `message`.
    pub(crate) fn record(message: &str) -> LogRecord {
        LogRecord {
            level: 20,
            target: "cmgmux_test".to_owned(),
            message: message.to_owned(),
            fields: BTreeMap::new(),
            time: 1.0,
        }
    }

    fn messages(batch: Vec<Event>) -> Vec<String> {
        let text = |event| match event {
            Event::Log(record) => format!("{} {:?}", record.message, record.fields),
            Event::Service(event) => panic!("{event:?}"),
        };
        batch.into_iter().map(text).collect()
    }

    #[test]
    fn dropped_records_are_reported_as_one_after_those_before_them() {
        let ring = Arc::new(LogRing::new(2));
        let mailbox = Mailbox::open(Arc::clone(&ring)).unwrap();
        for message in ["a", "b", "c", "d", "e"] {
            ring.push(record(message));
        }
        assert_eq!(messages(mailbox.take(2)), ["a {}", "b {}"]);
        ring.push(record("f"));
        let report = "dropped log records because nobody took them {\"dropped\": Int(3)}";
        assert_eq!(messages(mailbox.take(9)), [report, "f {}"]);
    }

    #[test]
    fn dropped_records_are_reported_before_the_next_one_that_has_room() {
        let ring = Arc::new(LogRing::new(2));
        let mailbox = Mailbox::open(Arc::clone(&ring)).unwrap();
        for message in ["a", "b", "c"] {
            ring.push(record(message));
        }
        assert_eq!(messages(mailbox.take(1)), ["a {}"]);
        ring.push(record("d"));
        let report = "dropped log records because nobody took them {\"dropped\": Int(1)}";
        assert_eq!(messages(mailbox.take(9)), ["b {}", report, "d {}"]);
    }

    #[test]
    fn a_flood_of_debug_records_leaves_room_for_the_others() {
        let ring = Arc::new(LogRing::new(4));
        let mailbox = Mailbox::open(Arc::clone(&ring)).unwrap();
        for message in ["a", "b", "c", "d", "e"] {
            ring.push(LogRecord { level: crate::log::DEBUG, ..record(message) });
        }
        ring.push(record("what matters"));
        let report = "dropped log records because nobody took them {\"dropped\": Int(3)}";
        assert_eq!(messages(mailbox.take(9)), ["a {}", "b {}", report, "what matters {}"]);
    }

    #[test]
    fn the_first_record_wakes_the_loop_and_the_next_ones_do_not() {
        let ring = Arc::new(LogRing::new(8));
        let mailbox = Mailbox::open(Arc::clone(&ring)).unwrap();
        for expected in 1..3 {
            ring.push(record("a"));
            assert_eq!(mailbox.wakeups(), expected);
            ring.push(record("b"));
            assert_eq!(mailbox.wakeups(), expected);
            assert_eq!(mailbox.take(9).len(), 2);
        }
    }

    #[test]
    fn the_oldest_open_mailbox_hands_out_the_records() {
        let ring = Arc::new(LogRing::new(8));
        ring.push(record("before anybody listened"));
        let first = Mailbox::open(Arc::clone(&ring)).unwrap();
        let second = Mailbox::open(Arc::clone(&ring)).unwrap();
        assert_eq!((first.wakeups(), second.wakeups()), (1, 0));
        assert_eq!(second.take(9), []);
        first.close();
        assert_eq!(second.wakeups(), 1, "the next in line is told of what waits");
        assert_eq!(messages(second.take(9)), ["before anybody listened {}"]);
    }

    #[test]
    fn a_mailbox_that_was_dropped_unclosed_does_not_hold_up_the_log() {
        let ring = Arc::new(LogRing::new(8));
        drop(Mailbox::open(Arc::clone(&ring)).unwrap());
        let second = Mailbox::open(Arc::clone(&ring)).unwrap();
        ring.push(record("heard"));
        assert_eq!(messages(second.take(9)), ["heard {}"]);
    }
}
