//! One shard's channels by site, and whose turn it is.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use cmgmux_net::{
    Channel, CloseCode, OpenError, Peer, PeerIdentity, RecvStream, SendStream, StreamKind,
};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::warn;

/// The channels of one shard. A request takes the next usable one of its site.
#[derive(Default)]
pub(crate) struct Router {
    sites: RefCell<BTreeMap<String, Turns>>,
    /// Notified when a channel has come or has tickets again.
    changed: Notify,
}

/// A new stream, and the channel that carries it.
pub(crate) struct Opened {
    pub(crate) channel: Channel,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
}

#[derive(Default)]
struct Turns {
    channels: Vec<Channel>,
    next: usize,
}

impl Router {
    /// Adds a channel. One that the same connection point had on this shard makes room for it.
    pub(crate) fn add(&self, peer: &PeerIdentity, channel: Channel) {
        let replaced = {
            let mut sites = self.sites.borrow_mut();
            let turns = sites.entry(peer.site.clone()).or_default();
            let old = turns.channels.iter().position(|old| old.peer() == channel.peer());
            turns.channels.push(channel);
            old.map(|old| turns.channels.swap_remove(old))
        };
        if let Some(old) = replaced {
            warn!(%peer, "a newer channel of the same connection point replaces an older one");
            old.close(CloseCode::REPLACED, "the connection point has opened a newer channel");
        }
        self.changed.notify_waiters();
    }

    /// Removes a channel that has ended.
    pub(crate) fn remove(&self, channel: &Channel) {
        let Peer::ConnectionPoint(peer) = channel.peer() else { return };
        if let Some(turns) = self.sites.borrow_mut().get_mut(&peer.site) {
            turns.channels.retain(|other| !other.is_same(channel));
        }
    }

    /// Tells waiting requests to look again.
    pub(crate) fn look_again(&self) {
        self.changed.notify_waiters();
    }

    /// All channels.
    pub(crate) fn channels(&self) -> Vec<Channel> {
        let sites = self.sites.borrow();
        sites.values().flat_map(|turns| turns.channels.iter().cloned()).collect()
    }

    /// Opens a stream on the next channel of `site` that takes one; waits for one for `patience`.
    ///
    /// # Errors
    ///
    /// Why there was none, in words.
    pub(crate) async fn open(
        &self,
        site: &str,
        patience: Duration,
    ) -> Result<Opened, &'static str> {
        let mut why = "";
        let opening = async {
            loop {
                let changed = self.changed.notified();
                match self.try_open(site, None) {
                    Ok(stream) => return stream,
                    Err(cause) => why = cause,
                }
                changed.await;
            }
        };
        timeout(patience, opening).await.map_err(|_| why)
    }

    /// Opens a stream on the next channel of `site` other than `used`, if one takes it now.
    pub(crate) fn open_elsewhere(&self, site: &str, used: &Channel) -> Option<Opened> {
        self.try_open(site, Some(used)).ok()
    }

    fn try_open(&self, site: &str, used: Option<&Channel>) -> Result<Opened, &'static str> {
        let mut sites = self.sites.borrow_mut();
        let turns = sites.get_mut(site).filter(|turns| !turns.channels.is_empty());
        let Some(turns) = turns else {
            return Err("no connection point of the site is connected");
        };
        let mut why = "every connection point of the site is draining";
        for _ in 0..turns.channels.len() {
            let turn = turns.next % turns.channels.len();
            turns.next = turn + 1;
            let channel = &turns.channels[turn];
            if used.is_some_and(|used| used.is_same(channel)) {
                continue;
            }
            match channel.try_open(StreamKind::Exchange) {
                Ok((send, recv)) => return Ok(Opened { channel: channel.clone(), send, recv }),
                Err(OpenError::NoTicket) => {
                    why = "every connection point of the site has as many streams as it allows";
                }
                Err(OpenError::Detached) => {
                    why = "every connection point of the site has lost its link and has no new one yet";
                }
                Err(OpenError::Draining | OpenError::Lost) => {}
            }
        }
        Err(why)
    }
}
