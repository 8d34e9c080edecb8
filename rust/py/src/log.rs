//! The native log's way to Python's `logging`: a subscriber that writes into a bounded ring.
//!
//! The subscriber runs on the threads of the services. It never touches the interpreter; it leaves
//! records in the process-wide [`LogRing`], which the oldest open [`Port`](crate::port::Port)
//! hands out on the thread of its event loop.

mod fields;
pub(crate) mod ring;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use pyo3::prelude::*;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

use self::fields::Fields;
use self::ring::LogRing;
use crate::event::LogRecord;

/// Records that wait for an event loop; with the longest values they take about 8 MiB.
const CAPACITY_RECORDS: usize = 4_096;

/// Replaced as a whole after a fork, when the lock inside may be held by a thread that is no more.
static RING: LazyLock<ArcSwap<LogRing>> =
    LazyLock::new(|| ArcSwap::from_pointee(LogRing::new(CAPACITY_RECORDS)));

/// What passes, in the numbers of Python's `logging`.
static THRESHOLD: AtomicU8 = AtomicU8::new(INFO);

const TRACE: u8 = 5;
const DEBUG: u8 = 10;
const INFO: u8 = 20;
const WARN: u8 = 30;
const ERROR: u8 = 40;

/// The ring of this process.
pub(crate) fn ring() -> Arc<LogRing> {
    RING.load_full()
}

/// Forgets the parent's records, in the child.
pub(crate) fn start_over() {
    RING.store(Arc::new(LogRing::new(CAPACITY_RECORDS)));
}

/// Makes the ring this module's subscriber. A second call changes nothing.
pub(crate) fn install() {
    let subscriber = Registry::default().with(RingLayer);
    // The only error is that there is one already, and that one is ours.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Keep native log records below `level` from being made.
///
/// `level` is a number of Python's `logging`; 5 lets trace pass, which is a record for each frame.
#[pyfunction]
#[pyo3(signature = (level, /))]
pub(crate) fn set_log_level(level: u8) {
    THRESHOLD.store(level, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

fn number(level: Level) -> u8 {
    match level {
        Level::TRACE => TRACE,
        Level::DEBUG => DEBUG,
        Level::INFO => INFO,
        Level::WARN => WARN,
        Level::ERROR => ERROR,
    }
}

/// Puts the events of our own crates into the ring.
struct RingLayer;

impl<S> Layer<S> for RingLayer
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        number(*metadata.level()) >= THRESHOLD.load(Ordering::Relaxed)
            && metadata.target().starts_with("cmgmux")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let threshold = THRESHOLD.load(Ordering::Relaxed);
        let levels = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
        let finest = levels.into_iter().find(|level| number(*level) >= threshold);
        Some(finest.map_or(LevelFilter::OFF, LevelFilter::from_level))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        if let Some(scope) = context.event_scope(event) {
            for span in scope.from_root() {
                if let Some(outer) = span.extensions().get::<Fields>() {
                    fields.merge(outer);
                }
            }
        }
        event.record(&mut fields);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let metadata = event.metadata();
        RING.load().push(LogRecord {
            level: number(*metadata.level()),
            target: metadata.target().to_owned(),
            message: fields.take_message(),
            fields: fields.into_map(),
            time,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FieldValue;
    use crate::mailbox::Mailbox;

    /// The only test that uses the process-wide ring and threshold.
    #[test]
    fn events_arrive_with_the_fields_of_their_spans_from_the_threshold_upwards() {
        install();
        let mailbox = Mailbox::open(ring()).unwrap();
        set_log_level(DEBUG);
        let span = tracing::info_span!(target: "cmgmux_test", "channel", id = 7, peer = "NYC/a");
        span.in_scope(|| {
            tracing::debug!(target: "cmgmux_test::deep", id = 8, took_s = 0.5, ok = true, "done");
            tracing::trace!(target: "cmgmux_test", "too fine");
            tracing::error!(target: "foreign", "not ours");
        });
        set_log_level(WARN);
        tracing::info!(target: "cmgmux_test", "below the threshold");
        let records: Vec<LogRecord> = mailbox
            .take(100)
            .into_iter()
            .filter_map(|event| match event {
                crate::event::Event::Log(record) => Some(record),
                crate::event::Event::Service(_) => None,
            })
            .collect();
        let [record] = &records[..] else { panic!("{records:?}") };
        assert_eq!(record.level, DEBUG);
        assert_eq!(record.target, "cmgmux_test::deep");
        assert_eq!(record.message, "done");
        let fields: Vec<_> = record.fields.iter().map(|(key, value)| (&**key, value)).collect();
        assert_eq!(
            fields,
            [
                ("id", &FieldValue::Int(8)),
                ("ok", &FieldValue::Bool(true)),
                ("peer", &FieldValue::Text("NYC/a".to_owned())),
                ("took_s", &FieldValue::Float(0.5)),
            ]
        );
    }
}
