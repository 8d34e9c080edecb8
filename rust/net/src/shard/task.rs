//! Tasks on a shard: every one is counted while it runs, and no panic goes unseen.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread;

use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::{Shared, StopSignal};
use crate::service::ServiceError;

/// A shard seen from one of its tasks. Cheap to clone; stays on its thread.
#[derive(Clone)]
pub struct Shard {
    state: Rc<State>,
}

struct State {
    index: usize,
    label: Arc<str>,
    shared: Arc<Shared>,
    stop: StopSignal,
    idle: Notify,
}

impl State {
    /// This shard's count of running tasks; others only read it.
    fn running(&self) -> &AtomicUsize {
        &self.shared.running[self.index].0
    }
}

impl Shard {
    pub(super) fn new(
        index: usize,
        label: Arc<str>,
        shared: Arc<Shared>,
        stop: StopSignal,
    ) -> Self {
        Self { state: Rc::new(State { index, label, shared, stop, idle: Notify::new() }) }
    }

    /// The shard's number, from 0; for the control thread, the number of shards.
    pub fn index(&self) -> usize {
        self.state.index
    }

    /// The signal that tells this shard's tasks to stop.
    pub fn stop(&self) -> &StopSignal {
        &self.state.stop
    }

    /// Starts a connection's task on this shard. Should it panic, it ends alone; see the
    /// [module](super) for what becomes of the panic.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.start(Kind::Connection, future);
    }

    /// Tasks that are running on this shard, root tasks included.
    pub fn running(&self) -> usize {
        self.state.running().load(Ordering::Relaxed)
    }

    pub(super) fn start_root<F, T>(&self, start: F)
    where
        F: FnOnce(Self) -> T + 'static,
        T: Future<Output = Result<(), String>> + 'static,
    {
        let shard = self.clone();
        self.start(Kind::Root, async move { start(shard).await });
    }

    fn start(&self, kind: Kind, future: impl Future<Output: Outcome> + 'static) {
        self.state.running().fetch_add(1, Ordering::Relaxed);
        let entry = Entry { state: Rc::clone(&self.state), kind };
        // Not awaited through its handle: the shard's thread waits until `running` is 0.
        drop(spawn_local(Task { future: Box::pin(future), entry }));
    }

    /// Waits until no task has been running at some time since the last call.
    pub(super) async fn idle(&self) {
        self.state.idle.notified().await;
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shard").field("index", &self.index()).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Root,
    Connection,
}

/// A task's place in the shard's count. Dropped after the task's future, whatever ended it.
struct Entry {
    state: Rc<State>,
    kind: Kind,
}

impl Entry {
    fn panicked(&self, message: &str) {
        let label = &self.state.label;
        let why = format!("panicked: {message}");
        match self.kind {
            Kind::Root => self.state.shared.fail(ServiceError { what: label.to_string(), why }),
            Kind::Connection => {
                let what = format!("a task of {label}");
                self.state.shared.note_panic(ServiceError { what, why });
            }
        }
    }

    fn failed(&self, why: String) {
        self.state.shared.fail(ServiceError { what: self.state.label.to_string(), why });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if thread::panicking() {
            self.panicked("while the task was dropped");
        }
        if self.state.running().fetch_sub(1, Ordering::Relaxed) == 1 {
            self.state.idle.notify_one();
        }
    }
}

/// What a task may end with.
trait Outcome {
    fn into_result(self) -> Result<(), String>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl Outcome for Result<(), String> {
    fn into_result(self) -> Self {
        self
    }
}

/// A future whose panics are reported. Not an `async` block around it, which would hold it twice.
struct Task<F> {
    future: Pin<Box<F>>,
    entry: Entry,
}

impl<F: Future<Output: Outcome>> Future for Task<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let task = &mut *self;
        match catch_unwind(AssertUnwindSafe(|| task.future.as_mut().poll(context))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => {
                if let Err(why) = outcome.into_result() {
                    task.entry.failed(why);
                }
            }
            Err(panic) => task.entry.panicked(panic_message(&*panic)),
        }
        Poll::Ready(())
    }
}

/// The text of a panic, as far as it has one.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
