//! The applications at both ends: they write, read, stop, reset and let go as the plan says.

use bytes::Bytes;
use cmgmux_mux::frame::kind;
use cmgmux_mux::{Channel, End, StreamId, Timestamp, Token};

use super::book::{Action, RESET, Rx, STOP, Tx, behaviour, charge, content, kind_of};
use super::ends::NAMES;
use super::{Event, World};
use crate::plan::{Behaviour, Ending};

impl World<'_> {
    /// Lets every application of an end do what it can.
    pub(super) fn run_applications(&mut self, side: usize) {
        if std::mem::take(&mut self.book.sides[side].has_tickets) {
            self.open_waiting(side);
        }
        while let Some(stream) = self.book.sides[side].touched.pop_front() {
            let party = &mut self.book.parties[stream][side];
            party.is_touched = false;
            if party.id.is_none() || party.released {
                continue;
            }
            self.read(stream, side);
            self.write(stream, side);
            self.release(stream, side);
        }
    }

    fn open_waiting(&mut self, side: usize) {
        while let Some(stream) = self.processes[side].waiting.front().copied() {
            let Some(live) = &mut self.processes[side].live else { return };
            let Ok(id) = live.channel.open(kind_of(stream), Token(stream as u32)) else { return };
            assert!(live.link.is_some(), "stream {stream} is opened without a link");
            let number = live.number;
            self.processes[side].waiting.pop_front();
            self.book.parties[stream][side].id = Some(id);
            self.book.ids.insert((number, id), stream);
            self.book.touch(side, stream);
            self.report.streams += 1;
            self.tell(|| format!("{:?} opens stream {stream} as {id}", NAMES[side]));
        }
    }

    /// Whether an action has become due; sees to it that it is not forgotten otherwise.
    fn is_due(&mut self, stream: usize, side: usize, action: Action) -> bool {
        let party = &mut self.book.parties[stream][side];
        let at = party.due[action as usize];
        if at <= self.now || self.is_healed {
            return true;
        }
        let turn = &mut party.turns[action as usize];
        if *turn != at {
            *turn = at;
            self.schedule(at, Event::Turn(stream, side));
        }
        false
    }

    fn read(&mut self, stream: usize, side: usize) {
        let how = behaviour(self.plan, stream, side).clone();
        while self.is_healed || !how.sleeps {
            let party = &self.book.parties[stream][side];
            let is_empty = party.unread.is_empty();
            if party.rx == Rx::Open && how.stop_at.is_some_and(|at| party.consumed >= at) {
                self.stop(stream, side);
                return;
            }
            if is_empty || !self.is_due(stream, side, Action::Read) {
                return;
            }
            let next = self.in_us(u64::from(how.read_pace_us));
            let party = &mut self.book.parties[stream][side];
            party.due[Action::Read as usize] = next;
            let Some(bytes) = party.unread.pop_front() else { return };
            party.consumed += bytes as u64;
            let (id, retired) = (party.id.expect("it has data"), party.retired);
            self.book.sides[side].unread -= charge(bytes);
            let live = self.processes[side].live.as_mut().expect("a stream has a channel");
            if retired {
                live.channel.consume_retired(bytes);
            } else {
                self.audits[live.number].handle_consumed(NAMES[side], id, charge(bytes));
                live.channel.consume(id, bytes);
            }
        }
    }

    fn stop(&mut self, stream: usize, side: usize) {
        let party = &mut self.book.parties[stream][side];
        let id = party.id.expect("a stream that is open");
        party.rx = Rx::Stopped;
        let dropped = party.charge();
        self.book.sides[side].unread -= dropped;
        let unread = std::mem::take(&mut party.unread);
        let live = self.processes[side].live.as_mut().expect("a stream has a channel");
        if party.retired {
            unread.iter().for_each(|bytes| live.channel.consume_retired(*bytes));
        } else {
            live.channel.stop(id, STOP);
            self.audits[live.number].handle_due(NAMES[side], id, kind::STOP);
        }
    }

    fn write(&mut self, stream: usize, side: usize) {
        let how = behaviour(self.plan, stream, side).clone();
        loop {
            let party = &self.book.parties[stream][side];
            if party.tx != Tx::Open {
                return;
            }
            let (id, written) = (party.id.expect("a stream that is open"), party.written);
            let total = if how.echoes { party.consumed } else { how.bytes };
            let is_waiting = how.echoes && !party.is_read();
            let rx = party.rx;
            if written == total && (is_waiting || how.ending == Ending::Endless && !self.is_healed)
            {
                return;
            }
            if !self.is_due(stream, side, Action::Write) {
                return;
            }
            let next = self.in_us(u64::from(how.write_pace_us));
            let live = self.processes[side].live.as_mut().expect("a stream has a channel");
            match live.channel.has_room(id) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => panic!("stream {stream} takes nothing: {error}"),
            }
            let party = &mut self.book.parties[stream][side];
            if written == total {
                let is_broken = how.echoes && rx != Rx::Ended;
                party.tx = finish(&mut live.channel, id, how.ending, is_broken);
                if party.tx != Tx::Finished {
                    self.audits[live.number].handle_due(NAMES[side], id, kind::RESET);
                }
                return;
            }
            let length = piece(&how, written, total);
            let after = written + length as u64;
            let is_last = after == total && !is_waiting && how.ending == Ending::Joined;
            let end = match after % u64::from(how.part_bytes) {
                _ if is_last => End::Stream,
                0 => End::Part,
                _ => End::None,
            };
            let data = content(stream, side, written, length);
            if let Err(error) = live.channel.send(id, data, end) {
                panic!("stream {stream} takes nothing: {error}");
            }
            party.written = after;
            party.due[Action::Write as usize] = next;
            if is_last {
                party.tx = Tx::Finished;
            }
        }
    }

    /// An application whose halves have both ended lets go.
    fn release(&mut self, stream: usize, side: usize) {
        let due = self.in_us(u64::from(behaviour(self.plan, stream, side).linger_us));
        let party = &mut self.book.parties[stream][side];
        if !party.is_done() {
            return;
        }
        if party.due[Action::Release as usize] == Timestamp::ZERO {
            party.due[Action::Release as usize] = due;
        }
        if !self.is_due(stream, side, Action::Release) {
            return;
        }
        let party = &mut self.book.parties[stream][side];
        party.released = true;
        let live = self.processes[side].live.as_mut().expect("a stream has a channel");
        let accepted = self.plan.streams[stream].opener != side;
        match (party.retired, accepted) {
            (true, true) => live.channel.complete(),
            (true, false) => {}
            (false, _) => live.channel.release(party.id.expect("a stream that was open")),
        }
        self.book.sides[side].completed += u64::from(accepted);
    }
}

/// Ends a sending half.
fn finish(channel: &mut Channel, id: StreamId, ending: Ending, is_broken: bool) -> Tx {
    if is_broken || ending == Ending::Reset {
        channel.reset(id, RESET);
        return Tx::Reset(RESET);
    }
    if let Err(error) = channel.send(id, Bytes::new(), End::Stream) {
        panic!("{id} cannot end: {error}");
    }
    if ending == Ending::EndedAndReset {
        channel.reset(id, RESET);
        return Tx::FinishedAndReset;
    }
    Tx::Finished
}

/// Bytes that go out in one go: no piece goes beyond the end of a part.
fn piece(how: &Behaviour, written: u64, total: u64) -> usize {
    let part = u64::from(how.part_bytes);
    let to_part = part - written % part;
    to_part.min(total - written).min(u64::from(how.piece_bytes)).min(60_000) as usize
}
