//! Threads of a process: shards, and a control thread beside them.
//!
//! A shard is one OS thread with a single-threaded tokio runtime. Its tasks stay on it, so they need
//! no `Send` and share state through `Rc`. [`Shards`] owns the threads from outside; [`Shard`] is the
//! view from a task inside; [`ShardHandle`] starts tasks on a shard from any thread.
//!
//! # Panics and failures
//!
//! A *root task* ([`Shards::spawn_on`]) is part of the service: if it panics or returns an error, the
//! whole group stops within a short grace and [`Shards::wait`] says which shard failed and why.
//!
//! A *connection's task* ([`Shard::spawn`], [`ShardHandle::try_spawn`]) serves one peer: if it panics,
//! it ends alone, because a peer that found a bug must not end the service of everybody else. The panic
//! is logged, counted ([`Shards::panics`]) and still makes [`Shards::wait`] fail at the very end.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::service::{ConfigError, ServiceError};

mod stop;
mod task;
mod thread_main;

pub use stop::StopSignal;
pub use task::Shard;

/// The most shards of one process, and so the most channels of a connection point to one instance.
pub const MAX_SHARDS: usize = 16;

/// Tasks that may wait to be started on one shard.
const MAX_WAITING_TASKS: usize = 1_024;

/// What the other root tasks have left once one has failed.
const FAILURE_GRACE: Duration = Duration::from_secs(2);

/// A task on its way to its shard.
type Job = Box<dyn FnOnce(&Shard) + Send>;

/// The number of shards for the optional setting `shards`: the number of cores, at most 16, if absent.
///
/// # Errors
///
/// [`ConfigError`] if the setting is not within 1..=16.
pub fn count(setting: Option<usize>) -> Result<usize, ConfigError> {
    match setting {
        None => Ok(thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_SHARDS))),
        Some(count @ 1..=MAX_SHARDS) => Ok(count),
        Some(count) => {
            Err(ConfigError::new("shards", format!("{count} is not within 1..{MAX_SHARDS}")))
        }
    }
}

/// The shards of a process and, if asked for, its control thread.
///
/// Dropping it stops all tasks at once, without waiting for the threads.
pub struct Shards {
    handles: Vec<ShardHandle>,
    shards: usize,
    shared: Arc<Shared>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Shards {
    /// Starts `count` threads named `<name>-<index>`.
    ///
    /// Linux cuts thread names after 15 bytes, so `name` should have 12 at most.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] about `shards` if the system refuses a thread or its event queue.
    pub fn start(name: &str, count: usize) -> Result<Self, ConfigError> {
        let threads = (0..count).map(|index| shard_names(name, index)).collect();
        Self::start_threads(threads, count)
    }

    /// As [`start`](Self::start), with one more thread, `control`, for work that belongs to no shard.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub fn start_with_control(name: &str, count: usize) -> Result<Self, ConfigError> {
        let mut threads: Vec<_> = (0..count).map(|index| shard_names(name, index)).collect();
        threads.push(ThreadNames::control());
        Self::start_threads(threads, count)
    }

    /// Starts the thread `name` alone; it is shard 0 of its own group.
    pub(crate) fn start_one(name: &str) -> Result<Self, ConfigError> {
        let names = ThreadNames { thread: name.to_owned(), label: format!("{name} thread") };
        Self::start_threads(vec![names], 1)
    }

    fn start_threads(names: Vec<ThreadNames>, shards: usize) -> Result<Self, ConfigError> {
        let shared = Arc::new(Shared {
            stops: names.iter().map(|_| watch::Sender::new(None)).collect(),
            running: names.iter().map(|_| Tasks::default()).collect(),
            fatal: Mutex::new(None),
            panic: Mutex::new(None),
            panics: AtomicU64::new(0),
        });
        // Built first: an early return drops it, which ends the threads that were started already.
        let mut group =
            Self { handles: Vec::new(), shards, shared, threads: Mutex::new(Vec::new()) };
        for (index, names) in names.into_iter().enumerate() {
            let (jobs, waiting) = mpsc::channel(MAX_WAITING_TASKS);
            let identity = thread_main::Identity {
                index,
                label: names.label.into(),
                shared: Arc::clone(&group.shared),
            };
            let handle = ShardHandle { jobs, shared: Arc::clone(&group.shared), index };
            let thread = thread_main::start(names.thread, identity, waiting)
                .map_err(|error| ConfigError::new("shards", error))?;
            group.handles.push(handle);
            group.threads.get_mut().push(thread);
        }
        Ok(group)
    }

    /// How many shards there are; the control thread does not count.
    pub fn count(&self) -> usize {
        self.shards
    }

    /// Starts a root task on `shard`. The closure runs on the shard; its future stays there.
    ///
    /// A root task may end with `Ok` at any time. An `Err`, or a panic, fails the service. Once the
    /// group has been asked to stop, `start` is dropped instead.
    ///
    /// # Panics
    ///
    /// If there is no such shard.
    pub fn spawn_on<F, T>(&self, shard: usize, start: F)
    where
        F: FnOnce(Shard) -> T + Send + 'static,
        T: Future<Output = Result<(), String>> + 'static,
    {
        assert!(shard < self.shards, "shard {shard} of {}", self.shards);
        self.spawn_root(shard, start);
    }

    /// Starts a root task on the control thread, under the terms of [`spawn_on`](Self::spawn_on).
    ///
    /// # Panics
    ///
    /// If the group has no control thread.
    pub fn spawn_control<F, T>(&self, start: F)
    where
        F: FnOnce(Shard) -> T + Send + 'static,
        T: Future<Output = Result<(), String>> + 'static,
    {
        assert!(self.handles.len() > self.shards, "the group was started without a control thread");
        self.spawn_root(self.shards, start);
    }

    fn spawn_root<F, T>(&self, thread: usize, start: F)
    where
        F: FnOnce(Shard) -> T + Send + 'static,
        T: Future<Output = Result<(), String>> + 'static,
    {
        let job: Job = Box::new(move |shard| shard.start_root(start));
        if let Err(SpawnError::Full) = self.handles[thread].send(job) {
            self.shared.fail(ServiceError {
                what: format!("shard {thread}"),
                why: SpawnError::Full.to_string(),
            });
        }
    }

    /// A handle that starts tasks on `shard` from any thread.
    ///
    /// # Panics
    ///
    /// If there is no such shard.
    pub fn handle(&self, shard: usize) -> ShardHandle {
        assert!(shard < self.shards, "shard {shard} of {}", self.shards);
        self.handles[shard].clone()
    }

    /// Panics of connections' tasks so far.
    pub fn panics(&self) -> u64 {
        self.shared.panics.load(Ordering::Relaxed)
    }

    /// Tasks that are running on all threads.
    pub fn tasks(&self) -> usize {
        self.shared.running.iter().map(|tasks| tasks.0.load(Ordering::Relaxed)).sum()
    }

    /// Asks all threads to stop and returns at once. Tasks see it in their [`StopSignal`]; those that
    /// are not done after `grace` are dropped. A second call can only shorten the grace.
    pub fn request_stop(&self, grace: Duration) {
        self.shared.request_stop(grace);
    }

    /// Blocks until all threads have ended, which they do only after
    /// [`request_stop`](Self::request_stop) or a failure. Must not be called from one of them.
    ///
    /// # Errors
    ///
    /// The first failure of a root task; without one, the first panic of a connection's task.
    pub fn wait(&self) -> Result<(), ServiceError> {
        let mut threads = self.threads.lock();
        for thread in threads.drain(..) {
            // Never an error: `thread_main` catches panics and reports them as failures.
            let _ = thread.join();
        }
        let fatal = self.shared.fatal.lock().clone();
        fatal.or_else(|| self.shared.panic.lock().clone()).map_or(Ok(()), Err)
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.shared.request_stop(Duration::ZERO);
    }
}

impl fmt::Debug for Shards {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shards").field("shards", &self.shards).finish_non_exhaustive()
    }
}

/// Starts tasks on one shard, from any thread.
#[derive(Clone)]
pub struct ShardHandle {
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
    index: usize,
}

impl ShardHandle {
    /// The shard's number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Starts a connection's task. The closure runs on the shard and takes what it carries there, such
    /// as a socket that finished its handshake elsewhere.
    ///
    /// # Errors
    ///
    /// [`SpawnError`]; `start` has been dropped then, and with it what it carried.
    pub fn try_spawn<F, T>(&self, start: F) -> Result<(), SpawnError>
    where
        F: FnOnce(Shard) -> T + Send + 'static,
        T: Future<Output = ()> + 'static,
    {
        self.send(Box::new(move |shard| shard.spawn(start(shard.clone()))))
    }

    fn send(&self, job: Job) -> Result<(), SpawnError> {
        if self.shared.stops[self.index].borrow().is_some() {
            return Err(SpawnError::Stopped);
        }
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SpawnError::Full,
            mpsc::error::TrySendError::Closed(_) => SpawnError::Stopped,
        })
    }
}

impl fmt::Debug for ShardHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ShardHandle").field("index", &self.index).finish_non_exhaustive()
    }
}

/// A task that could not be handed to a shard.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The shard is stopping or has stopped.
    #[error("the shard is stopping")]
    Stopped,
    /// As many tasks wait for the shard as may.
    #[error("{MAX_WAITING_TASKS} tasks wait to be started on the shard already")]
    Full,
}

/// A thread's count of its running tasks, on a cache line of its own: only that thread writes it.
#[derive(Default)]
#[repr(align(64))]
struct Tasks(AtomicUsize);

/// What all threads of a group share.
struct Shared {
    /// One for each thread, so that tasks of different shards never touch the same lock.
    stops: Vec<watch::Sender<Option<Instant>>>,
    /// Tasks that are running, by thread.
    running: Vec<Tasks>,
    fatal: Mutex<Option<ServiceError>>,
    panic: Mutex<Option<ServiceError>>,
    panics: AtomicU64,
}

impl Shared {
    fn request_stop(&self, grace: Duration) {
        let now = Instant::now();
        // A grace that the clock cannot express is no limit: a hundred years will do.
        let deadline = now
            .checked_add(grace)
            .unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 24 * 60 * 60));
        for stop in &self.stops {
            stop.send_if_modified(|current| {
                let earlier = current.is_none_or(|current| deadline < current);
                if earlier {
                    *current = Some(deadline);
                }
                earlier
            });
        }
    }

    /// Records the failure of a root task or thread, and stops the group.
    fn fail(&self, error: ServiceError) {
        tracing::error!(what = %error.what, why = %error.why, "service failed");
        self.fatal.lock().get_or_insert(error);
        self.request_stop(FAILURE_GRACE);
    }

    /// Records the panic of a connection's task.
    fn note_panic(&self, error: ServiceError) {
        tracing::error!(what = %error.what, why = %error.why, "task panicked");
        self.panics.fetch_add(1, Ordering::Relaxed);
        self.panic.lock().get_or_insert(error);
    }
}

/// What a thread is called: by the system, and in our messages.
struct ThreadNames {
    thread: String,
    label: String,
}

impl ThreadNames {
    fn control() -> Self {
        Self { thread: "control".to_owned(), label: "control thread".to_owned() }
    }
}

fn shard_names(name: &str, index: usize) -> ThreadNames {
    ThreadNames { thread: format!("{name}-{index}"), label: format!("shard {index}") }
}

#[cfg(test)]
mod tests;
