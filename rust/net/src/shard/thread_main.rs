//! What a shard's thread does: start the tasks it is given, and end when they have.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::sleep_until;

use super::task::panic_message;
use super::{Job, Shard, Shared, StopSignal};
use crate::service::ServiceError;

/// Which thread this is, and what it shares with its group.
pub(super) struct Identity {
    pub(super) index: usize,
    pub(super) label: Arc<str>,
    pub(super) shared: Arc<Shared>,
}

/// Starts the thread called `name`. Errors are in words.
pub(super) fn start(
    name: String,
    identity: Identity,
    jobs: mpsc::Receiver<Job>,
) -> Result<thread::JoinHandle<()>, String> {
    let refused = |error: io::Error| format!("cannot start a thread: {error}");
    let runtime =
        Builder::new_current_thread().enable_io().enable_time().build().map_err(refused)?;
    let body = move || {
        let label = Arc::clone(&identity.label);
        let shared = Arc::clone(&identity.shared);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&runtime, identity, jobs))) {
            let why = format!("panicked: {}", panic_message(&*panic));
            shared.fail(ServiceError { what: label.to_string(), why });
        }
    };
    thread::Builder::new().name(name).spawn(body).map_err(refused)
}

fn run(runtime: &Runtime, identity: Identity, jobs: mpsc::Receiver<Job>) {
    let stop = StopSignal::new(identity.shared.stops[identity.index].subscribe());
    let shard = Shard::new(identity.index, identity.label, identity.shared, stop);
    let tasks = LocalSet::new();
    tasks.block_on(runtime, async {
        start_tasks(&shard, jobs).await;
        finish_tasks(&shard).await;
    });
    // The tasks that the grace has left over go here, still inside the runtime that they use.
    let _inside = runtime.enter();
    drop(tasks);
}

/// Starts what arrives until the group stops. What has arrived before that is started still, so that
/// a connection on its way to the shard may say goodbye within the grace.
async fn start_tasks(shard: &Shard, mut jobs: mpsc::Receiver<Job>) {
    let stop = shard.stop().requested();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            job = jobs.recv() => match job {
                Some(job) => job(shard),
                // Nobody can start a task any more; those that run may go on until the stop.
                None => return stop.await,
            },
        }
    }
    jobs.close();
    while let Ok(job) = jobs.try_recv() {
        job(shard);
    }
}

/// Waits for the running tasks, at most until the deadline.
async fn finish_tasks(shard: &Shard) {
    let mut stop = shard.stop().receiver();
    while shard.running() > 0 {
        let Some(deadline) = *stop.borrow_and_update() else {
            return;
        };
        tokio::select! {
            () = sleep_until(deadline.into()) => return,
            () = shard.idle() => {}
            changed = stop.changed() => if changed.is_err() { return },
        }
    }
}
