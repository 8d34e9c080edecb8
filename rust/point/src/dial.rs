//! Keeping one channel to one instance up.

use std::borrow::Cow;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cmgmux_net::backoff::Backoff;
use cmgmux_net::shard::{Shard, StopSignal};
use cmgmux_net::{Channel, EndReason, Established, HandshakeError, Hello, Id, Limits, greet};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::forward::Forwarder;
use crate::instance::Instance;
use crate::plan::Plan;
use crate::publish;

/// The ordinal whose channel carries the publication and says how many channels are wanted.
const FIRST: u8 = 0;
/// Pauses between attempts to give a channel a new link: its streams are waiting, and it has a minute.
const RESUME_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// How long a channel must last before the pauses begin again with the shortest: an instance that
/// accepts and closes must not be dialled in a tight loop.
const LASTING: Duration = Duration::from_secs(10);
/// The longest time that the end of a drained channel keeps of the grace, for its last words.
const FAREWELL: Duration = Duration::from_millis(500);

/// Keeps the channel of one ordinal to one instance.
pub(crate) struct Keeper {
    pub(crate) plan: Arc<Plan>,
    pub(crate) instance: Arc<Instance>,
    pub(crate) ordinal: u8,
    pub(crate) boot_id: Id,
    pub(crate) shard: Shard,
    pub(crate) forwarder: Rc<Forwarder>,
}

/// Why an instance was not reached.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("cannot resolve the host: {0}")]
    Unresolved(io::Error),
    #[error("cannot connect: {0}")]
    Unreachable(io::Error),
    #[error("no channel within {} s (connect_timeout_s)", .0.as_secs_f64())]
    Timeout(Duration),
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("cannot use the connection: {0}")]
    Start(io::Error),
}

impl DialError {
    /// The error's kind, for counters.
    fn reason(&self) -> Cow<'static, str> {
        let reason = match self {
            Self::Unresolved(_) => "unresolved",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::Handshake(error) => return error.reason(),
            Self::Start(_) => "connection",
        };
        reason.into()
    }
}

/// An attempt or a channel that is over, not by our own wish.
struct Over {
    /// Its kind, as the counters have it.
    reason: String,
    /// Its words.
    cause: String,
    /// Whether the channel was up for long enough to count as a success.
    has_lasted: bool,
}

impl Keeper {
    /// Dials, serves and dials again until the process stops.
    pub(crate) async fn run(self) {
        let Self { instance, ordinal, .. } = &self;
        let stop = self.shard.stop().clone();
        let mut wanted = instance.wanted.subscribe();
        let seed = fastrand::u64(..);
        let mut backoff = Backoff::new(self.plan.reconnect.min, self.plan.reconnect.max, seed);
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return instance.note_unwanted(*ordinal),
                () = is_wanted(&mut wanted, *ordinal, true) => {}
            }
            let attempt = instance.note_attempt(*ordinal);
            let round = Box::pin(self.round(&stop, wanted.clone()));
            let Some(over) = round.await else {
                instance.note_unwanted(*ordinal);
                backoff.reset();
                continue;
            };
            if over.has_lasted {
                backoff.reset();
                instance.note_lasted(*ordinal);
            }
            let pause = backoff.next_delay();
            let is_news = instance.note_failure(*ordinal, &over.cause, pause);
            self.log(&over, attempt, pause, is_news);
            tokio::select! {
                biased;
                () = stop.requested() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// One attempt and, if it succeeds, the life of its channel. Tells why it is over; nothing if
    /// that was our own wish.
    async fn round(&self, stop: &StopSignal, mut wanted: watch::Receiver<u8>) -> Option<Over> {
        let connected = tokio::select! {
            biased;
            () = stop.requested() => return None,
            () = is_wanted(&mut wanted, self.ordinal, false) => return None,
            connected = self.connect() => connected,
        };
        match connected {
            Ok(established) => self.serve(established, stop, wanted).await,
            Err(error) => Some(self.unreached(&error)),
        }
    }

    /// Resolves, connects and shakes hands, all within the time that the configuration gives.
    async fn connect(&self) -> Result<Established, DialError> {
        let endpoint = &self.instance.endpoint;
        let hello = Hello {
            limits: Limits::default(),
            instance: endpoint.index,
            ordinal: self.ordinal,
            boot_id: self.boot_id.0,
        };
        let tls = Arc::clone(&self.plan.tls);
        self.reach(async |socket| greet(socket, tls, endpoint.server_name.clone(), hello).await)
            .await
    }

    /// Gives a channel a new link.
    async fn resume(&self, channel: &Channel) -> Result<(), DialError> {
        let (tls, name) = (Arc::clone(&self.plan.tls), self.instance.endpoint.server_name.clone());
        self.reach(async |socket| channel.resume_over(socket, tls, name).await).await
    }

    /// Resolves and connects, then does `greet`.
    async fn reach<T>(
        &self,
        greet: impl AsyncFnOnce(TcpStream) -> Result<T, HandshakeError>,
    ) -> Result<T, DialError> {
        let limit = self.plan.connect_timeout;
        let address = &self.instance.endpoint.address;
        let connecting = async {
            let addresses: Vec<_> = lookup_host((address.host(), address.port()))
                .await
                .map_err(DialError::Unresolved)?
                .collect();
            let socket =
                TcpStream::connect(&addresses[..]).await.map_err(DialError::Unreachable)?;
            Ok(greet(socket).await?)
        };
        timeout(limit, connecting).await.map_err(|_| DialError::Timeout(limit))?
    }

    /// Gives a channel a new link whenever it loses one; at once, then with growing pauses. Never
    /// ready: when the channel ends is for its driver to say.
    async fn keep_link(&self, channel: &Channel) -> Infallible {
        let (min, max) = RESUME_PAUSES;
        let mut backoff = Backoff::new(min, max, fastrand::u64(..));
        loop {
            let loss = channel.needs_link().await;
            let mut cause = loss.to_string();
            backoff.reset();
            loop {
                self.instance.note_resuming(self.ordinal, &cause);
                let Err(error) = self.resume(channel).await else { break };
                let reason = self.note_failed(&error);
                cause = error.to_string();
                let pause = backoff.next_delay();
                let (instance, ordinal) = (self.instance.endpoint.index, self.ordinal);
                debug!(instance, ordinal, ?pause, reason, cause, "channel not resumed yet");
                sleep(pause).await;
            }
        }
    }

    async fn serve(
        &self,
        established: Established,
        stop: &StopSignal,
        mut wanted: watch::Receiver<u8>,
    ) -> Option<Over> {
        let (shards, boot_id) = (established.shards, established.peer_boot_id);
        let (channel, driver) = match Channel::start(established, self.forwarder.ledger()) {
            Ok(started) => started,
            Err(error) => return Some(self.unreached(&DialError::Start(error))),
        };
        self.instance.note_up(self.ordinal, channel.clone(), boot_id);
        let began = Instant::now();
        // The last word to the instance may take longer than the channel.
        self.shard.spawn(async move {
            driver.await;
        });
        self.shard.spawn(Rc::clone(&self.forwarder).serve(channel.clone()));
        if self.ordinal == FIRST {
            self.instance.wanted.send_replace(shards);
            let publisher = publish::Publisher {
                plan: Arc::clone(&self.plan),
                instance: Arc::clone(&self.instance),
                channel: channel.clone(),
            };
            self.shard.spawn(publisher.run());
        }
        let mut ended = pin!(async {
            tokio::select! {
                biased;
                reason = channel.ended() => reason,
                never = self.keep_link(&channel) => match never {},
            }
        });
        tokio::select! {
            biased;
            reason = &mut ended => return Some(Over::lost(&reason, began)),
            () = stop.requested() => {}
            () = is_wanted(&mut wanted, self.ordinal, false) => {}
        }
        channel.drain(drain_grace(stop));
        ended.await;
        None
    }

    fn unreached(&self, error: &DialError) -> Over {
        Over { reason: self.note_failed(error), cause: error.to_string(), has_lasted: false }
    }

    /// Counts an attempt that has failed, and gives its kind.
    fn note_failed(&self, error: &DialError) -> String {
        let reason = error.reason().into_owned();
        self.forwarder.ledger().note_link_failure(&reason);
        reason
    }

    /// The same failure again is of interest only to who looks closely.
    fn log(&self, Over { reason, cause, .. }: &Over, attempt: u32, pause: Duration, is_news: bool) {
        let endpoint = &self.instance.endpoint;
        let (instance, address) = (endpoint.index, &endpoint.address);
        let (ordinal, next_s) = (self.ordinal, pause.as_secs_f64());
        if is_news {
            warn!(instance, %address, ordinal, attempt, next_s, reason, cause, "not connected");
        } else {
            debug!(
                instance, %address, ordinal, attempt, next_s, reason, cause,
                "still not connected"
            );
        }
    }
}

impl Over {
    fn lost(reason: &EndReason, began: Instant) -> Self {
        let has_lasted = began.elapsed() >= LASTING;
        let cause = format!("the channel has ended: {reason}");
        Self { reason: reason.code(), cause, has_lasted }
    }
}

/// Waits until the instance wants the channel of `ordinal`, or does not want it any more.
async fn is_wanted(wanted: &mut watch::Receiver<u8>, ordinal: u8, expected: bool) {
    let reached = wanted.wait_for(|&shards| (shards > ordinal) == expected).await;
    if reached.is_err() {
        // The instance's record is gone, and with it the process.
        std::future::pending::<()>().await;
    }
}

/// How long a channel may drain: what the process has left, but for the time of the last words; a
/// minute if only the channel ends.
fn drain_grace(stop: &StopSignal) -> Duration {
    const UNWANTED_GRACE: Duration = Duration::from_secs(60);
    let Some(deadline) = stop.deadline() else {
        return UNWANTED_GRACE;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    left.saturating_sub(FAREWELL.min(left / 4))
}
