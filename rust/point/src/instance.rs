//! What is known of one gateway instance: the state of each link to it, and of the publication.

use std::time::{Duration, Instant};

use cmgmux_net::shard::MAX_SHARDS;
use cmgmux_net::{Channel, CloseCode, Id};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::plan::Endpoint;

/// One gateway instance. The tasks that keep its channels write here; the status reads.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) endpoint: Endpoint,
    /// How many channels the instance wants, as it said last; 1 before it has said anything.
    pub(crate) wanted: watch::Sender<u8>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    links: Vec<Link>,
    publication: Publication,
    /// The cause of the last failure that was logged for everybody to see.
    told: Option<String>,
}

/// One ordinal.
#[derive(Debug)]
struct Link {
    phase: Phase,
    last_error: Option<String>,
    /// Attempts since the last channel that lasted.
    attempts: u32,
}

#[derive(Debug)]
enum Phase {
    /// The instance has no such shard.
    Unwanted,
    Connecting {
        since: Instant,
    },
    /// With a link, or waiting for a new one.
    Up {
        channel: Channel,
        boot_id: Id,
    },
    Waiting {
        until: Instant,
    },
}

/// What has become of the publication on the current channel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Publication {
    /// Not sent on this channel.
    Unsent,
    /// Sent; no answer yet.
    Sent,
    /// The gateway uses it.
    Accepted,
    /// The gateway goes on with what it had before, for these reasons.
    Refused(Vec<String>),
}

/// How many of the wanted channels are up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Standing {
    pub(crate) wanted: usize,
    pub(crate) up: usize,
}

impl Standing {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { wanted: self.wanted + other.wanted, up: self.up + other.up }
    }

    pub(crate) fn in_words(self) -> &'static str {
        match self.up {
            0 => "connecting",
            up if up < self.wanted => "partly connected",
            _ => "connected",
        }
    }
}

impl Instance {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        let link = |_| Link { phase: Phase::Unwanted, last_error: None, attempts: 0 };
        let state = State {
            links: (0..MAX_SHARDS).map(link).collect(),
            publication: Publication::Unsent,
            told: None,
        };
        Self { endpoint, wanted: watch::Sender::new(1), state: Mutex::new(state) }
    }

    /// An attempt begins. Returns its number, from 1, since the last channel that lasted.
    pub(crate) fn note_attempt(&self, ordinal: u8) -> u32 {
        self.with_link(ordinal, |link| {
            link.phase = Phase::Connecting { since: Instant::now() };
            link.attempts += 1;
            link.attempts
        })
    }

    /// A channel is up. Those to an earlier run of the instance's process end: it has forgotten them. One
    /// that drains is to a process that still lives beside the new one.
    pub(crate) fn note_up(&self, ordinal: u8, channel: Channel, boot_id: Id) {
        let mut state = self.state.lock();
        let State { links, told, .. } = &mut *state;
        *told = None;
        for link in &*links {
            if let Phase::Up { channel, boot_id: run } = &link.phase
                && *run != boot_id
                && !channel.is_draining()
            {
                channel.close(CloseCode::REPLACED, "the instance has started anew");
            }
        }
        let link = &mut links[usize::from(ordinal)];
        link.phase = Phase::Up { channel, boot_id };
        link.last_error = None;
    }

    /// A channel that has lost its link is about to be given another.
    pub(crate) fn note_resuming(&self, ordinal: u8, cause: &str) {
        self.with_link(ordinal, |link| link.last_error = Some(cause.to_owned()));
    }

    /// The channel has lasted: whatever fails next is a new story.
    pub(crate) fn note_lasted(&self, ordinal: u8) {
        self.with_link(ordinal, |link| link.attempts = 0);
    }

    /// An attempt has failed or a channel has ended; the next attempt comes after `pause`. Returns
    /// whether the cause is news.
    pub(crate) fn note_failure(&self, ordinal: u8, cause: &str, pause: Duration) -> bool {
        self.with_link(ordinal, |link| {
            link.phase = Phase::Waiting { until: Instant::now() + pause };
            link.last_error = Some(cause.to_owned());
        });
        let told = &mut self.state.lock().told;
        let is_news = told.as_deref() != Some(cause);
        if is_news {
            *told = Some(cause.to_owned());
        }
        is_news
    }

    /// The instance does not want this channel, or the process stops.
    pub(crate) fn note_unwanted(&self, ordinal: u8) {
        self.with_link(ordinal, |link| {
            *link = Link { phase: Phase::Unwanted, last_error: None, attempts: 0 };
        });
    }

    /// Replaces what is known of the publication.
    pub(crate) fn note_publication(&self, publication: Publication) {
        self.state.lock().publication = publication;
    }

    /// How many channels are wanted and up.
    pub(crate) fn standing(&self) -> Standing {
        let wanted = usize::from(*self.wanted.borrow());
        let state = self.state.lock();
        let is_up =
            |link: &&Link| matches!(&link.phase, Phase::Up { channel, .. } if channel.is_usable());
        Standing { wanted, up: state.links.iter().take(wanted).filter(is_up).count() }
    }

    /// Everything, as the status shows it.
    pub(crate) fn snapshot(&self, serial: u64) -> Value {
        let standing = self.standing();
        let state = self.state.lock();
        let is_shown = |(_, link): &(usize, &Link)| !matches!(link.phase, Phase::Unwanted);
        let links = state.links.iter().enumerate().filter(is_shown);
        let channels: Vec<_> = links.map(|(ordinal, link)| link.snapshot(ordinal)).collect();
        let (publication, reasons) = match &state.publication {
            Publication::Unsent => ("unsent", &[][..]),
            Publication::Sent => ("sent", &[][..]),
            Publication::Accepted => ("accepted", &[][..]),
            Publication::Refused(reasons) => ("refused", &reasons[..]),
        };
        json!({
            "index": self.endpoint.index,
            "address": self.endpoint.address.to_string(),
            "server_name": self.endpoint.server_name.to_str(),
            "state": standing.in_words(),
            "channels_wanted": standing.wanted,
            "channels_up": standing.up,
            "publication": {"state": publication, "serial": serial, "reasons": reasons},
            "channels": channels,
        })
    }

    fn with_link<T>(&self, ordinal: u8, work: impl FnOnce(&mut Link) -> T) -> T {
        work(&mut self.state.lock().links[usize::from(ordinal)])
    }
}

impl Link {
    fn snapshot(&self, ordinal: usize) -> Value {
        let now = Instant::now();
        let mut shown = json!({
            "ordinal": ordinal,
            "attempts": self.attempts,
            "last_error": self.last_error,
        });
        let (state, detail, value) = match &self.phase {
            Phase::Unwanted => ("unwanted", "boot_id", Value::Null),
            Phase::Connecting { since } => {
                ("connecting", "since_s", json!(now.duration_since(*since).as_secs_f64()))
            }
            Phase::Up { channel, boot_id } => {
                shown["stats"] = json!(channel.stats());
                let state = if channel.outage().is_some() { "resuming" } else { "up" };
                (state, "instance_boot_id", json!(boot_id))
            }
            Phase::Waiting { until } => {
                let left = until.saturating_duration_since(now);
                ("waiting", "next_attempt_s", json!(left.as_secs_f64()))
            }
        };
        shown["state"] = json!(state);
        shown[detail] = value;
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partly_connected_is_neither_connected_nor_not() {
        let of = |wanted, up| Standing { wanted, up };
        assert_eq!(of(4, 0).in_words(), "connecting");
        assert_eq!(of(4, 3).in_words(), "partly connected");
        assert_eq!(of(4, 0).plus(of(1, 1)).in_words(), "partly connected");
        assert_eq!(of(4, 4).in_words(), "connected");
    }
}
