//! The links that carry the channel one after the other.
//!
//! The connection point sends its [`Claim`] over a new link; the old one, if it still lives, goes on
//! as before. The instance accepts a claim by leaving the old link for good, between two frames, and
//! answers where it stands. From then on nothing more can arrive over the old link at the instance,
//! so what it says of its position is exact; the connection point, which may have applied more from the
//! old link since its claim, skips that much of what the instance sends again.

use tracing::debug;

use super::Channel;
use crate::error::{ProtocolError, ResumeCode};
use crate::flight::Flight;
use crate::liveness::Liveness;
use crate::resume::{Claim, Resumed};
use crate::stream::Side;
use crate::time::Timestamp;

/// The present link, and what is known of the next one.
#[derive(Debug, Default, Hash)]
pub(super) struct Links {
    /// Number of the newest claim that was sent, or accepted. The first link has 0.
    pub(super) epoch: u32,
    /// The claim of this end that has not been answered.
    claim: Option<Claim>,
    /// Until when a channel without a link waits for one; `None` while it has one.
    pub(super) detached_until: Option<Timestamp>,
    /// Bytes of tracked frames that the peer sends again and that have been applied before.
    pub(super) skip: u64,
}

impl Links {
    pub(super) fn is_attached(&self) -> bool {
        self.detached_until.is_none()
    }
}

impl Channel {
    /// The link is dead. Nothing is encoded until the channel has a new one; what is under way stays.
    /// Until [`next_deadline`](Self::next_deadline) there is time for that. The owner drops what it
    /// holds of a partial frame.
    pub fn handle_link_lost(&mut self, now: Timestamp) {
        if self.links.is_attached() {
            self.links.detached_until = Some(now.after(self.config.resume_window));
            self.forget_link();
        }
    }

    /// Whether the channel has a link.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.links.is_attached()
    }

    /// Says where this end, the connection point's, stands, for a RESUME over a new link. The present
    /// link, if it lives, goes on until the answer comes. A new claim takes an older one's place.
    ///
    /// # Panics
    ///
    /// After 4 billion claims.
    pub fn claim(&mut self) -> Claim {
        debug_assert_eq!(self.side, Side::ConnectionPoint, "the one that dials resumes");
        self.links.epoch = self.links.epoch.checked_add(1).expect("a channel has fewer links");
        let claim =
            Claim { epoch: self.links.epoch, rx_pos: self.rx_pos, tx_first: self.ring.acked() };
        self.links.claim = Some(claim);
        claim
    }

    /// Takes over the link on which the connection point, whose proof was right, sent `claim`. Send
    /// the answer on it before anything else. With [`ResumeCode::ACCEPTED`] the link is the
    /// channel's from here on: nothing more may be read from the old one, and the partial frame that
    /// arrived on it is to be dropped. With another code nothing has changed.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::ResumeRange`]: one end lacks what the other needs, so the channel cannot go
    /// on. Nothing has changed.
    pub fn handle_claim(
        &mut self,
        now: Timestamp,
        claim: &Claim,
    ) -> Result<Resumed, ProtocolError> {
        debug_assert_eq!(self.side, Side::Instance, "the one that accepts links");
        let Claim { epoch, rx_pos, tx_first } = *claim;
        if epoch <= self.links.epoch {
            return Ok(Resumed::refusal(epoch, ResumeCode::STALE_EPOCH));
        }
        check_range("its receiving position", rx_pos, 0, self.ring.encoded())?;
        check_range("its first byte", tx_first, 0, self.rx_pos)?;
        // Acknowledgements may have overtaken the claim on the old link.
        let tx_start = rx_pos.max(self.ring.acked());
        self.links.epoch = epoch;
        self.attach(now, tx_start, self.rx_pos);
        Ok(Resumed { code: ResumeCode::ACCEPTED, epoch, rx_pos: self.rx_pos, tx_start })
    }

    /// Takes over the new link, on which the instance accepted a claim. Says whether the channel goes
    /// on over it: not if it answers an older claim than the latest. The old link is to be dropped
    /// with what has been read from it and not applied.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::ResumeRange`]: one end lacks what the other needs, so the channel cannot go
    /// on. Nothing has changed.
    pub fn handle_resumed(
        &mut self,
        now: Timestamp,
        resumed: &Resumed,
    ) -> Result<bool, ProtocolError> {
        let Resumed { epoch, rx_pos, tx_start, .. } = *resumed;
        let Some(claim) = self.links.claim.filter(|claim| claim.epoch == epoch) else {
            return Ok(false);
        };
        let (first, encoded) = (self.ring.claimed(), self.ring.encoded());
        check_range("its receiving position", rx_pos, first, encoded)?;
        check_range("its first byte", tx_start, claim.rx_pos, self.rx_pos)?;
        self.links.claim = None;
        self.attach(now, rx_pos, tx_start);
        self.links.skip = self.rx_pos - tx_start;
        Ok(true)
    }

    /// Goes on over a new link, with the frames from `tx_start` on. The peer knows that this end has
    /// what lies before `told`.
    fn attach(&mut self, now: Timestamp, tx_start: u64, told: u64) {
        self.forget_link();
        self.links.detached_until = None;
        self.ring.rewind(tx_start);
        self.counters.resumes += 1;
        self.counters.replayed_bytes += self.ring.bytes();
        self.liveness = Liveness::new(&self.config, now);
        self.flight = Flight::new(self.config.ring_bytes, tx_start, now);
        self.rx_acked = told;
        self.ack_due = (self.rx_pos > told).then(|| now.after(self.config.ack_delay));
        debug!(
            epoch = self.links.epoch,
            replay_bytes = self.ring.bytes(),
            "channel moved to a new link"
        );
    }

    /// Drops what belongs to the old link alone.
    fn forget_link(&mut self) {
        self.links.skip = 0;
        self.untracked.clear();
        self.ping = None;
        self.pong = None;
        self.ack_due = None;
    }
}

fn check_range(
    what: &'static str,
    position: u64,
    first: u64,
    last: u64,
) -> Result<(), ProtocolError> {
    if (first..=last).contains(&position) {
        return Ok(());
    }
    Err(ProtocolError::ResumeRange { what, position, first, last })
}
