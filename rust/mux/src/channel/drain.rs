//! GOAWAY, which this end sends or the peer: what is open goes on, and nothing new begins.

use std::time::Duration;

use tracing::debug;

use super::{Application, Channel, Token};
use crate::error::{CloseCode, ProtocolError, StreamCode};
use crate::frame::{Control, StreamId};
use crate::scheduler::Class;
use crate::stream::{Flags, RxState, Slot, TxState};

impl Channel {
    /// Asks the peer to open no more streams. What it has opened goes on; opens that arrive once this
    /// has been encoded are refused. The owner ends the channel after `grace`.
    pub fn go_away(&mut self, code: CloseCode, grace: Duration) {
        self.go_away = Some((code, grace));
    }

    /// Whether a channel that drains may be [closed](Self::close) before its grace is over: no stream is
    /// left, and the peer has everything, also the news which of its streams were not seen. What it has not
    /// acknowledged would be lost with the link.
    #[must_use]
    pub fn has_drained(&self) -> bool {
        let owes = self.go_away.is_some() || self.ring.bytes() > 0;
        self.ours.live() + self.theirs.live() == 0 && !owes
    }

    /// Whether streams can be opened as far as the peer's wishes go; tickets are another matter.
    #[must_use]
    pub fn accepts_opens(&self) -> bool {
        self.taken_opens.is_none()
    }

    pub(super) fn encode_go_away(&mut self, code: CloseCode, grace: Duration, room: &mut usize) {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let opens_accepted = *self.drained_after.get_or_insert(self.accepted);
        let go_away = Control::GoAway { opens_accepted, code: code.0, grace_ms };
        self.encode_control(&go_away, StreamId::CHANNEL, room);
    }

    /// The peer takes no stream but the first `accepted`. The later ones need not wait until it refuses
    /// each, nor for the channel's end.
    pub(super) fn handle_go_away(
        &mut self,
        accepted: u64,
        code: CloseCode,
        grace: Duration,
        app: &mut impl Application,
    ) -> Result<(), ProtocolError> {
        let possible = self.taken_opens.unwrap_or(self.encoded_opens);
        if accepted > possible {
            return Err(ProtocolError::GoAwayRange { accepted, possible });
        }
        if self.taken_opens.is_none() {
            let position = self.ring.acked();
            let opens = self.ring.opens(self.side);
            self.crossing = opens.ok_or(ProtocolError::AckBoundary { position })?;
            self.refuse_unopened(app);
        }
        app.draining(code, grace);
        self.taken_opens = Some(accepted);
        self.refuse_unseen(possible - accepted, app);
        Ok(())
    }

    /// Ends the streams of ours that the peer has not heard of.
    fn refuse_unopened(&mut self, app: &mut impl Application) {
        let lists = [Class::Small, Class::Bulk].map(|class| self.scheduler.list(class).clone());
        for id in lists.into_iter().flatten().map(|ready| ready.id) {
            let slot = self.ours.get_mut(id).filter(|slot| slot.flags.has(Flags::UNOPENED));
            let Some(slot) = slot else { continue };
            debug!(stream = %id, "the peer drains, the stream was not opened");
            self.queues.clear(slot);
            tell_refused(slot, app);
            if !slot.flags.has(Flags::RELEASED) {
                app.retired(Token(slot.token));
            }
            self.ours.remove(id, false);
        }
    }

    /// Gives up the last `count` streams that this end has opened and not given up so: the peer has not
    /// seen them.
    fn refuse_unseen(&mut self, count: u64, app: &mut impl Application) {
        for _ in 0..count {
            let Some(id) = self.crossing.pop() else { return };
            let Some(slot) = self.ours.get_mut(id) else { continue };
            debug!(stream = %id, "the peer drains and has not seen the stream");
            tell_refused(slot, app);
            if slot.rx == RxState::Open {
                self.stop(id, StreamCode::REFUSED);
            }
            self.reset(id, StreamCode::REFUSED);
        }
    }
}

/// Tells the application that what is open of a stream was refused.
fn tell_refused(slot: &Slot, app: &mut impl Application) {
    let token = Token(slot.token);
    if slot.flags.has(Flags::RELEASED) {
        return;
    }
    if slot.rx == RxState::Open {
        app.reset(token, StreamCode::REFUSED);
    }
    if matches!(slot.tx, TxState::Open | TxState::Finishing) {
        app.stopped(token, StreamCode::REFUSED);
    }
}
