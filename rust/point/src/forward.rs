//! One exchange, from its stream to the role and back.
//!
//! Nothing is held beyond what is on its way: the body of the request is taken from the stream, which
//! grants the gateway credit, once the role takes it; the answer is read from the role only while the stream
//! takes more. Whoever leaves ends the exchange at once: if the client does, the connection to the
//! role closes; if the role does, the stream is reset, so that a broken answer never looks whole.
//!
//! A client that stops reading or sending is the gateway's to give up (its `stall_timeout_s`); here
//! only the role's time is limited.

mod admit;
mod answer;
mod passage;
mod tunnel;

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cmgmux_exchange::code;
use cmgmux_exchange::mapping::MappingTable;
use cmgmux_exchange::refusal::{Reason, Refusal};
use cmgmux_net::shard::Shard;
use cmgmux_net::{Channel, Incoming, Ledger, RecvStream, SendStream, StreamCode, StreamKind};
use http::Method;
use tokio::time::{sleep, timeout};
use tracing::debug;

use self::passage::Passage;
use crate::counters::{Counters, Exchanges, OpenExchange};
use crate::plan::Plan;
use crate::upstream::{Failure, RequestParts, Upstream, Upstreams};

/// How long the head of a request may take once its stream is open. The gateway sends both at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How often idle connections are looked after.
const TENDING_INTERVAL: Duration = Duration::from_secs(5);

/// What the exchanges of one shard share.
pub(crate) struct Forwarder {
    shard: Shard,
    counters: Arc<Counters>,
    table: MappingTable<Destination>,
    upstreams: Upstreams,
}

/// Where a mapping leads.
#[derive(Clone)]
struct Destination {
    upstream: Rc<Upstream>,
    exchanges: Arc<Exchanges>,
}

impl Forwarder {
    pub(crate) fn new(shard: Shard, plan: &Plan, counters: Arc<Counters>) -> Self {
        let mut upstreams = Upstreams::default();
        let mut routes = Vec::with_capacity(plan.routes.len());
        let mappings = plan.routes.iter().zip(&plan.role_tls).zip(&counters.mappings);
        for ((route, tls), exchanges) in mappings {
            let upstream = upstreams.of(route.authority(), tls.as_ref(), || {
                let upstream = Arc::clone(&counters.upstream);
                Upstream::new(route.authority().clone(), tls.clone(), upstream)
            });
            let destination = Destination { upstream, exchanges: Arc::clone(exchanges) };
            routes.push((route.clone(), destination));
        }
        let table = MappingTable::build(routes).expect("the plan has no prefix twice");
        Self { shard, counters, table, upstreams }
    }

    /// What the channels of the process share.
    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.counters.ledger
    }

    /// Serves the streams that the gateway opens on `channel`, until the channel ends.
    pub(crate) async fn serve(self: Rc<Self>, channel: Channel) {
        while let Some(Incoming { kind, send, recv }) = channel.accept().await {
            match kind {
                StreamKind::Exchange => {
                    self.shard.spawn(exchange(Rc::clone(&self), send, recv));
                }
                _ => {
                    debug!(?kind, "the gateway opened a stream that it must not open");
                    send.reset(StreamCode::REFUSED);
                    recv.stop(StreamCode::REFUSED);
                }
            }
        }
    }

    /// Closes the connections that nobody has used for a while; all of them once the process stops.
    pub(crate) async fn tend_connections(self: Rc<Self>) {
        let mut stopped = pin!(self.shard.stop().requested());
        loop {
            tokio::select! {
                () = &mut stopped => break,
                () = sleep(TENDING_INTERVAL) => {}
            }
            self.upstreams.iter().for_each(Upstream::close_unused);
        }
        self.upstreams.iter().for_each(Upstream::close);
    }

    /// Answers with an error of our own. Boxed, because it is rare.
    fn refuse<'a>(
        &'a self,
        mut send: SendStream,
        method: &'a Method,
        refusal: Refusal,
    ) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
        self.counters.refuse(refusal.reason());
        debug!(reason = refusal.reason().code(), details = refusal.details(), "refused");
        Box::pin(async move {
            if answer::refuse(&mut send, method, &refusal).await.is_err() {
                self.counters.abandoned.add(1);
            }
        })
    }

    /// Reads the head of a request and decides where it goes; answers itself if that is nowhere.
    async fn receive(&self, send: SendStream, recv: RecvStream) -> Option<Box<Passage>> {
        let mut parts = RequestParts::new(recv);
        let (head, is_complete) = match timeout(HEAD_TIMEOUT, parts.head()).await {
            Ok(Ok(received)) => received,
            Ok(Err(Failure::Gone)) => {
                self.counters.abandoned.add(1);
                return None;
            }
            Ok(Err(failure)) => {
                debug!(error = %failure, "the gateway sent what is no request");
                parts.stop(failure.code());
                send.reset(failure.code());
                return None;
            }
            Err(_) => {
                parts.stop(StreamCode(code::TIMED_OUT));
                let refusal = Refusal::by_connection_point(Reason::HeadTimeout);
                self.refuse(send, &Method::GET, refusal).await;
                return None;
            }
        };
        let method = head.method.clone();
        match admit::admit(&self.table, head) {
            Ok(admitted) => {
                let rest = (!is_complete).then_some(parts);
                Some(Box::new(Passage::new(admitted, send, rest)))
            }
            Err(refusal) => {
                if refusal.reason() == Reason::BodyTooLarge {
                    parts.stop(StreamCode(code::BODY_TOO_LARGE));
                }
                self.refuse(send, &method, refusal).await;
                None
            }
        }
    }
}

/// Serves one stream to its end.
async fn exchange(forwarder: Rc<Forwarder>, send: SendStream, recv: RecvStream) {
    let _open = OpenExchange::of(&forwarder.counters.exchanges);
    if let Some(passage) = forwarder.receive(send, recv).await {
        passage.run(&forwarder).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_output<T>(_: &impl Fn(Rc<Forwarder>, SendStream, RecvStream) -> T) -> usize {
        size_of::<T>()
    }

    #[test]
    fn a_held_exchange_is_small() {
        let bytes = size_of_output(&exchange);
        assert!(bytes <= 1_280, "an exchange's task holds {bytes} bytes");
    }
}
