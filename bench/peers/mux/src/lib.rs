//! One measurement of one multiplexer: both ends in this process, a thread each, TLS over loopback.

mod in_memory;
mod job;
mod killed;
mod mux;
mod peers;
mod raw;
mod scenario;
mod shaper;
mod tls;

use std::future::pending;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::task::LocalSet;

use crate::job::{Job, Path};
use crate::mux::{Mux, Peer};
use crate::peers::{cmgmux, h2, quinn, tokio_yamux, yamux};
use crate::scenario::{Scenario, acceptor, opener};

/// Time that setting up may take on top of the measurement.
const SET_UP: Duration = Duration::from_secs(120);

/// What an allocator that counts has seen.
#[derive(Clone, Copy, Debug)]
pub struct Heap {
    /// In use at present.
    pub bytes: usize,
    /// Made since the start.
    pub allocations: usize,
}

/// Asks the allocator, if it is one that counts.
pub type AskHeap = fn() -> Option<Heap>;

/// Does what the program's argument, a JSON object, describes, and prints its figures as one.
pub fn main(heap: AskHeap) -> ExitCode {
    match std::env::args().nth(1).context("usage: bench-mux JOB").and_then(|job| run(&job, heap)) {
        // A shaper measures nothing.
        Ok(Value::Null) => ExitCode::SUCCESS,
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench-mux: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(job: &str, heap: AskHeap) -> Result<Value> {
    let job: Job = serde_json::from_str(job).context("the job is not one")?;
    match job.peer.as_str() {
        "rustls" => raw::run(&job),
        "core" => in_memory::run(&job, heap),
        "cmgmux" if matches!(job.scenario, Scenario::Killed) => killed::run(&job),
        "cmgmux" => pair::<cmgmux::Cmgmux>(job, heap),
        "h2" => pair::<h2::H2>(job, heap),
        "quinn" => pair::<quinn::Quinn>(job, heap),
        "rust-yamux" => pair::<yamux::Yamux>(job, heap),
        "tokio-yamux" => pair::<tokio_yamux::TokioYamux>(job, heap),
        "shaper" => shaper::serve(&job),
        other => bail!("no peer is called {other}"),
    }
}

/// Runs the two ends on a thread each until one of them has measured something.
fn pair<P: Peer>(job: Job, heap: AskHeap) -> Result<Value> {
    let (listener, address) = P::bind()?;
    let address = match &job.path {
        Path::Direct => address,
        Path::Shaped(link) if P::DATAGRAMS => shaper::datagrams(address, link)?,
        Path::Shaped(link) => shaper::stream(address, link)?,
    };
    let (results, result) = mpsc::channel();
    let limit = SET_UP + job.duration();
    let spawn = |end: End<P>| {
        let (results, job) = (results.clone(), job.clone());
        std::thread::spawn(move || end.run(&job, heap, &results))
    };
    spawn(End::Accepting(listener));
    spawn(End::Dialling(address));
    // The other end's thread goes with the process.
    result.recv_timeout(limit).context("nothing was measured in time")?
}

enum End<P: Peer> {
    Accepting(P::Listener),
    Dialling(SocketAddr),
}

impl<P: Peer> End<P> {
    /// Plays the end's part and stays, so that the other end sees no connection break.
    fn run(self, job: &Job, heap: AskHeap, results: &Sender<Result<Value>>) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async {
            results.send(self.play(job, heap).await)?;
            pending().await
        })
    }

    async fn play(self, job: &Job, heap: AskHeap) -> Result<Value> {
        match self {
            Self::Accepting(listener) => {
                play(P::accept(listener).await?, job, P::ACCEPTOR_OPENS, heap).await
            }
            Self::Dialling(address) => {
                play(P::dial(address).await?, job, !P::ACCEPTOR_OPENS, heap).await
            }
        }
    }
}

async fn play(mux: impl Mux, job: &Job, opens: bool, heap: AskHeap) -> Result<Value> {
    // The connection lasts as long as the process.
    let mux: &'static _ = Box::leak(Box::new(mux));
    if opens { opener(mux, job, heap).await } else { acceptor(mux, job, heap).await }
}
