//! What the application has not consumed, and who gives way when that is too much.
//!
//! Streams stand in a queue in the order in which they became unread. When the budget is exceeded the
//! first ones are given up, but for those that were read since they were listed: they go to the end.
//! So every look at an entry is paid for by data received or consumed, and none is a search.

use std::collections::VecDeque;

use tracing::debug;

use super::{Application, Channel, Pending, Token, table};
use crate::error::StreamCode;
use crate::frame::StreamId;
use crate::stream::{Flags, RxState, Slot};

/// Entries that the queue may have without a look at which of them still mean something.
const SPARE: usize = 64;

/// The account of one channel.
#[derive(Debug, Default, Hash)]
pub(super) struct Unread {
    /// Charge that the application holds.
    pub(super) bytes: u64,
    order: VecDeque<Entry>,
    /// Length at which entries of streams that have been read are sought out.
    sweep_at: usize,
}

/// A stream that had data unread when it was listed.
#[derive(Clone, Copy, Debug, Hash)]
struct Entry {
    id: StreamId,
    token: Token,
    /// Charge of the stream that had been consumed by then.
    consumed: u64,
}

impl Unread {
    /// The application has used or dropped `charge`.
    pub(super) fn release(&mut self, charge: u64) {
        debug_assert!(charge <= self.bytes, "released more than was held");
        self.bytes = self.bytes.saturating_sub(charge);
    }

    /// The application gets data of a stream; says whether the queue is longer by it.
    pub(super) fn hold(&mut self, slot: &mut Slot, id: StreamId, charge: u32) -> bool {
        slot.rx_unread += charge;
        self.bytes += u64::from(charge);
        let is_new = !slot.flags.has(Flags::LISTED);
        if is_new {
            slot.flags.set(Flags::LISTED);
            let (token, consumed) = (Token(slot.token), consumed(slot));
            self.order.push_back(Entry { id, token, consumed });
        }
        is_new
    }

    /// The application drops what the stream holds.
    pub(super) fn forget(&mut self, slot: &mut Slot) {
        self.release(u64::from(std::mem::take(&mut slot.rx_unread)));
    }
}

impl Channel {
    /// Keeps what the application holds within the budget, and the queue short when it has become longer.
    pub(super) fn keep_budget(&mut self, is_longer: bool, app: &mut impl Application) {
        if is_longer && self.unread.order.len() > self.unread.sweep_at {
            self.sweep(app);
        }
        if self.unread.bytes > self.config.budget_bytes {
            self.give_up_slow(app);
        }
    }

    /// Drops the entries of streams that have nothing unread.
    fn sweep(&mut self, app: &impl Application) {
        let Self { ours, theirs, unread, .. } = self;
        unread.order.retain(|entry| match table(ours, theirs, entry.id).get_mut(entry.id) {
            Some(slot) if slot.rx_unread == 0 => {
                slot.flags.take(Flags::LISTED);
                false
            }
            Some(_) => true,
            None => app.unread(entry.token, entry.id) > 0,
        });
        unread.sweep_at = 2 * unread.order.len() + SPARE;
        // A queue that fills up to that again and again needs no new memory for it.
        if unread.order.capacity() > 4 * unread.sweep_at {
            unread.order.shrink_to(unread.sweep_at);
        }
    }

    /// Gives up the streams that have been unread for longest until the budget is kept.
    fn give_up_slow(&mut self, app: &mut impl Application) {
        while self.unread.bytes > self.config.budget_bytes {
            let Some(mut entry) = self.unread.order.pop_front() else {
                return;
            };
            let (id, token) = (entry.id, entry.token);
            if let Some(slot) = table(&mut self.ours, &mut self.theirs, id).get_mut(id) {
                if slot.rx_unread == 0 {
                    slot.flags.take(Flags::LISTED);
                    continue;
                }
                let consumed = consumed(slot);
                if consumed > entry.consumed {
                    entry.consumed = consumed;
                    self.unread.order.push_back(entry);
                    continue;
                }
                slot.flags.take(Flags::LISTED);
                self.unread.forget(slot);
                if slot.rx == RxState::Open {
                    slot.rx = RxState::Stopped;
                    self.pending.push_back((id, Pending::Stop(StreamCode::SLOW_CONSUMER)));
                }
            } else {
                let held = app.unread(token, id);
                if held == 0 {
                    continue;
                }
                self.unread.release(held);
            }
            debug!(stream = %id, "gave up a stream that was read too slowly");
            self.counters.slow_consumers += 1;
            app.too_slow(token);
        }
    }
}

/// Charge of a stream that the application has consumed.
fn consumed(slot: &Slot) -> u64 {
    slot.rx_off - u64::from(slot.rx_unread)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::{Bytes, BytesMut};

    use super::*;
    use crate::channel::End;
    use crate::config::Config;
    use crate::error::CloseCode;
    use crate::frame::{Control, FIN, Header, StreamKind, kind};
    use crate::stream::Side;
    use crate::time::Timestamp;

    /// An application that reads everything but of the streams it sleeps on.
    struct Reader {
        asleep: Vec<Token>,
        opened: u32,
    }

    impl Application for Reader {
        fn opened(&mut self, _id: StreamId, _kind: StreamKind) -> Token {
            self.opened += 1;
            Token(self.opened)
        }
        fn unread(&self, stream: Token, _id: StreamId) -> u64 {
            u64::from(self.asleep.contains(&stream))
        }
        fn data(&mut self, _stream: Token, _data: Bytes, _end: End) {}
        fn too_slow(&mut self, _stream: Token) {}
        fn reset(&mut self, _stream: Token, _code: StreamCode) {}
        fn stopped(&mut self, _stream: Token, _code: StreamCode) {}
        fn writable(&mut self, _stream: Token) {}
        fn retired(&mut self, _stream: Token) {}
        fn tickets(&mut self) {}
        fn draining(&mut self, _code: CloseCode, _grace: Duration) {}
        fn closed(&mut self, _code: CloseCode, _text: &str) {}
    }

    /// Has the peer open a stream with one byte and the end, and answers it with the end.
    fn exchange(channel: &mut Channel, app: &mut Reader, number: u32) {
        let stream = StreamId::new(1, u8::try_from(number / 10_000).unwrap(), number % 10_000 + 1);
        let header = Header { length: 5, kind: kind::OPEN, flags: FIN, stream };
        let mut input = BytesMut::from(&header.encode()[..]);
        input.extend_from_slice(&[1, 0, 0, 0, b'x']);
        channel.handle_input(Timestamp::ZERO, &mut input, app).unwrap();
        channel.send(stream, Bytes::new(), End::Stream).unwrap();
        assert!(channel.poll_output(Timestamp::ZERO, app));
        channel.handle_written(Timestamp::ZERO);
        let ack = Control::Ack { rx_pos: channel.ring.encoded(), delay_us: 0 };
        ack.encode(StreamId::CHANNEL, &mut input);
        channel.handle_input(Timestamp::ZERO, &mut input, app).unwrap();
        if !app.asleep.contains(&Token(app.opened)) {
            channel.consume_retired(1);
        }
        channel.complete();
    }

    #[test]
    fn streams_that_have_been_read_leave_nothing_and_sleepers_stay_listed() {
        let mut channel = Channel::new(Side::ConnectionPoint, Config::default(), Timestamp::ZERO);
        let mut app = Reader { asleep: (1..=10).map(Token).collect(), opened: 0 };
        for number in 0..20_000 {
            exchange(&mut channel, &mut app, number);
            assert!(channel.unread.order.len() <= 2 * 11 + SPARE + 1, "after {number}");
        }
        let listed = channel.unread.order.iter().take(10);
        assert!(listed.map(|entry| entry.token).eq(app.asleep.iter().copied()));
        assert_eq!(channel.unread.bytes, 10 * 33);
    }
}
