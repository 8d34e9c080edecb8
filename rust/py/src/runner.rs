//! One service and the thread that waits for it, whatever kind of service it is.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cmgmux_net::{ConfigError, Service};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::error::HandleError;
use crate::event::ServiceEvent;
use crate::fork::Birth;
use crate::mailbox::Mailbox;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A service that is started on a thread of its own and reports to a mailbox.
///
/// The thread posts `started` or `failed`, and after `started` in the end `ended`.
pub(crate) struct Runner<S: Service> {
    id: u64,
    birth: Birth,
    phase: Arc<Mutex<Phase<S>>>,
}

enum Phase<S: Service> {
    /// Waits for [`Runner::start`].
    Ready(S::Config),
    /// The thread is in `Service::start`; `stop` is what to do when that returns.
    Starting { stop: Option<Duration> },
    /// Runs, or ran: its last counters stay readable.
    Running(Arc<S>),
    /// Did not start.
    Failed,
}

impl<S: Service> Runner<S> {
    /// A service that is not started yet.
    ///
    /// # Errors
    ///
    /// [`HandleError::Config`] if `settings` is not the JSON of the service's configuration.
    pub(crate) fn new(settings: &str) -> Result<Self, HandleError> {
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            birth: Birth::here(),
            phase: Arc::new(Mutex::new(Phase::Ready(parse(settings)?))),
        })
    }

    /// The number that its events carry.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Starts the service on a thread of its own and returns at once.
    ///
    /// # Errors
    ///
    /// [`HandleError::AlreadyStarted`], or [`HandleError::Io`] if there is no thread to be had.
    pub(crate) fn start(&self, mailbox: &Arc<Mailbox>) -> Result<(), HandleError> {
        self.birth.check()?;
        let mut phase = self.phase.lock();
        let Phase::Ready(_) = *phase else {
            return Err(HandleError::AlreadyStarted);
        };
        let Phase::Ready(config) = std::mem::replace(&mut *phase, Phase::Starting { stop: None })
        else {
            return Err(HandleError::AlreadyStarted);
        };
        let (id, shared, mailbox) = (self.id, Arc::clone(&self.phase), Arc::clone(mailbox));
        let spawned = thread::Builder::new()
            .name(format!("cmgmux-{id}"))
            .spawn(move || run(id, config, &shared, &mailbox));
        spawned.map(drop).map_err(|source| {
            *phase = Phase::Failed;
            HandleError::Io { what: "starting a thread for the service", source }
        })
    }

    /// The service, once it has started; also after it has ended.
    ///
    /// # Errors
    ///
    /// [`HandleError::NotRunning`] before it has started, or if it failed to.
    pub(crate) fn service(&self) -> Result<Arc<S>, HandleError> {
        self.birth.check()?;
        match &*self.phase.lock() {
            Phase::Running(service) => Ok(Arc::clone(service)),
            Phase::Ready(_) | Phase::Starting { .. } | Phase::Failed => {
                Err(HandleError::NotRunning)
            }
        }
    }

    /// Begins to stop: see [`Service::request_stop`]. A service that is still starting stops as
    /// soon as it has started.
    ///
    /// # Errors
    ///
    /// [`HandleError::Forked`] alone: stopping what does not run is fine.
    pub(crate) fn request_stop(&self, grace: Duration) -> Result<(), HandleError> {
        self.birth.check()?;
        let mut phase = self.phase.lock();
        let service = match &mut *phase {
            Phase::Starting { stop } => {
                *stop = Some(stop.map_or(grace, |earlier| earlier.min(grace)));
                return Ok(());
            }
            Phase::Running(service) => Arc::clone(service),
            Phase::Ready(_) | Phase::Failed => return Ok(()),
        };
        drop(phase);
        service.request_stop(grace);
        Ok(())
    }
}

/// Reads settings from JSON.
///
/// # Errors
///
/// [`HandleError::Config`] if `settings` is not the JSON of such a configuration.
pub(crate) fn parse<C: DeserializeOwned>(settings: &str) -> Result<C, HandleError> {
    serde_json::from_str(settings)
        .map_err(|error| HandleError::Config(ConfigError::new("", error.to_string())))
}

impl<S: Service> Drop for Runner<S> {
    fn drop(&mut self) {
        // In a forked child this is an error, and there is nothing to stop.
        let _ = self.request_stop(Duration::ZERO);
    }
}

/// The life of the service, on its own thread.
fn run<S: Service>(id: u64, config: S::Config, phase: &Mutex<Phase<S>>, mailbox: &Mailbox) {
    let started = catch_unwind(AssertUnwindSafe(|| S::start(config)));
    let service = match started {
        Ok(Ok(service)) => Arc::new(service),
        Ok(Err(ConfigError { key, message })) => {
            *phase.lock() = Phase::Failed;
            return mailbox.post(ServiceEvent::failed(id, Some(key), message));
        }
        Err(panic) => {
            *phase.lock() = Phase::Failed;
            return mailbox.post(ServiceEvent::failed(id, None, in_words(&*panic)));
        }
    };
    let before = std::mem::replace(&mut *phase.lock(), Phase::Running(Arc::clone(&service)));
    if let Phase::Starting { stop: Some(grace) } = before {
        service.request_stop(grace);
    }
    mailbox.post(ServiceEvent::started(id));
    let ended = catch_unwind(AssertUnwindSafe(|| service.wait()));
    let message = match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(panic) => Some(in_words(&*panic)),
    };
    mailbox.post(ServiceEvent::ended(id, message));
}

fn in_words(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a defect in cmgmux: {}", text.unwrap_or("panic without a message"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    use cmgmux_net::ServiceError;
    use serde::Deserialize;

    use super::*;
    use crate::event::Event;
    use crate::log::ring::LogRing;

    /// A service without sockets: runs until it is told to stop, then ends as it was told.
    struct Fake {
        stop: Sender<Duration>,
        stopped: Mutex<Receiver<Duration>>,
        end: FakeEnd,
    }

    #[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
    enum FakeEnd {
        Well,
        Badly,
        Panic,
        FailToStart,
        PanicAtStart,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct FakeConfig {
        end: FakeEnd,
    }

    impl Service for Fake {
        type Config = FakeConfig;

        fn start(config: FakeConfig) -> Result<Self, ConfigError> {
            match config.end {
                FakeEnd::FailToStart => return Err(ConfigError::new("listen", "port in use")),
                FakeEnd::PanicAtStart => panic!("while starting"),
                FakeEnd::Well | FakeEnd::Badly | FakeEnd::Panic => {}
            }
            let (stop, stopped) = channel();
            Ok(Self { stop, stopped: Mutex::new(stopped), end: config.end })
        }

        fn status(&self) -> serde_json::Value {
            serde_json::json!({"kind": "fake"})
        }

        fn request_stop(&self, grace: Duration) {
            self.stop.send(grace).unwrap();
        }

        fn wait(&self) -> Result<(), ServiceError> {
            let grace = self.stopped.lock().recv().unwrap();
            assert_ne!(self.end, FakeEnd::Panic, "after a grace of {grace:?}");
            if self.end == FakeEnd::Badly {
                return Err(ServiceError { what: "shard 1".into(), why: "of a test".into() });
            }
            Ok(())
        }
    }

    fn fake(end: &str) -> (Runner<Fake>, Arc<Mailbox>) {
        let runner = Runner::new(&format!("{{\"end\": \"{end}\"}}")).unwrap();
        (runner, Mailbox::open(Arc::new(LogRing::new(8))).unwrap())
    }

    /// The next event, waiting for it at most ten seconds.
    fn next(mailbox: &Arc<Mailbox>) -> ServiceEvent {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            match mailbox.take(1).pop() {
                Some(Event::Service(event)) => return event,
                Some(Event::Log(record)) => panic!("{record:?}"),
                None => thread::yield_now(),
            }
        }
        panic!("no event within ten seconds");
    }

    #[test]
    fn a_service_starts_answers_stops_and_stays_readable() {
        let (runner, mailbox) = fake("Well");
        assert!(matches!(runner.service(), Err(HandleError::NotRunning)));
        runner.start(&mailbox).unwrap();
        assert_eq!(next(&mailbox), ServiceEvent::started(runner.id()));
        assert_eq!(runner.service().unwrap().status()["kind"], "fake");
        runner.request_stop(Duration::from_secs(1)).unwrap();
        assert_eq!(next(&mailbox), ServiceEvent::ended(runner.id(), None));
        assert!(runner.service().is_ok());
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let (runner, mailbox) = fake("FailToStart");
        runner.start(&mailbox).unwrap();
        let failed = ServiceEvent::failed(runner.id(), Some("listen".into()), "port in use".into());
        assert_eq!(next(&mailbox), failed);
        assert!(matches!(runner.service(), Err(HandleError::NotRunning)));
    }

    #[test]
    fn an_end_without_a_stop_says_why() {
        let (runner, mailbox) = fake("Badly");
        runner.start(&mailbox).unwrap();
        next(&mailbox);
        runner.request_stop(Duration::ZERO).unwrap();
        let why = next(&mailbox).message.unwrap();
        assert_eq!(why, "shard 1 ended by itself: of a test");
    }

    #[test]
    fn a_panic_becomes_an_event_whenever_it_happens() {
        let (runner, mailbox) = fake("PanicAtStart");
        runner.start(&mailbox).unwrap();
        assert_eq!(next(&mailbox).message.unwrap(), "a defect in cmgmux: while starting");

        let (runner, mailbox) = fake("Panic");
        runner.start(&mailbox).unwrap();
        next(&mailbox);
        runner.request_stop(Duration::from_secs(3)).unwrap();
        assert!(next(&mailbox).message.unwrap().contains("after a grace of 3s"));
    }

    #[test]
    fn a_service_starts_once() {
        let (runner, mailbox) = fake("Well");
        runner.start(&mailbox).unwrap();
        assert!(matches!(runner.start(&mailbox), Err(HandleError::AlreadyStarted)));
    }

    #[test]
    fn dropping_the_handle_stops_the_service() {
        let (runner, mailbox) = fake("Well");
        let id = runner.id();
        runner.start(&mailbox).unwrap();
        drop(runner);
        assert_eq!(next(&mailbox), ServiceEvent::started(id));
        assert_eq!(next(&mailbox), ServiceEvent::ended(id, None));
    }

    #[test]
    fn stopping_what_never_ran_is_fine() {
        let (runner, _mailbox) = fake("Well");
        runner.request_stop(Duration::ZERO).unwrap();
        assert!(matches!(runner.service(), Err(HandleError::NotRunning)));
    }

    #[test]
    fn settings_that_do_not_fit_are_refused() {
        let error = Runner::<Fake>::new("{\"end\": \"Well\", \"more\": 1}").err().unwrap();
        assert!(error.to_string().contains("unknown field `more`"), "{error}");
    }
}
