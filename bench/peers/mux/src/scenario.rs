//! What the two ends do. One of them measures; the other goes on until the process ends.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::pending;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::{spawn_local, yield_now};
use tokio::time::sleep;

use crate::job::Job;
use crate::mux::{Mux, Rx, Tx};
use crate::{AskHeap, Heap};

pub(crate) const WARM_UP: Duration = Duration::from_millis(500);
/// Bytes of one write of bulk.
pub(crate) const PIECE: usize = 64 * 1024;
/// Bytes of a small message.
pub(crate) const MESSAGE: usize = 300;
/// Messages that one task writes before the others of its thread get their turn.
pub(crate) const TURN: usize = 128;
/// Tasks that open and close streams.
const CHURNERS: usize = 100;
/// Streams with bulk beside messages.
pub(crate) const FLOODS: usize = 4;
/// Echoes before the bulk, of which the fastest counts as the round trip.
const BASE_ECHOES: usize = 50;
/// Time between two echoes.
const ECHO_PAUSE: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// Streams that carry as much as they can.
    #[default]
    Bulk,
    /// Messages of 300 B, going round all streams.
    Small,
    /// The same, each message in a record of its own; for the bare TLS connection.
    SmallUncoalesced,
    /// Streams that carry one byte each way.
    Churn,
    /// Streams that are held and silent.
    Idle,
    /// A message and its echo while bulk flows.
    Echo,
    /// Bulk and messages of 300 B both ways, and links that are killed.
    Killed,
}

/// The end that opens streams.
pub(crate) async fn opener(mux: &'static impl Mux, job: &Job, heap: AskHeap) -> Result<Value> {
    match job.scenario {
        Scenario::Bulk => {
            flood(mux, job.streams).await?;
            pending().await
        }
        Scenario::Small | Scenario::SmallUncoalesced => go_round(mux, job.streams).await,
        Scenario::Churn => churn(mux, job.duration()).await,
        Scenario::Idle => idle(mux, job.streams, heap).await,
        Scenario::Echo => echo(mux, job.duration()).await,
        Scenario::Killed => bail!("its streams end with their connection"),
    }
}

/// The end that accepts streams.
pub(crate) async fn acceptor(mux: &'static impl Mux, job: &Job, heap: AskHeap) -> Result<Value> {
    match job.scenario {
        Scenario::Bulk => {
            let counts = sink(mux, job.streams, PIECE).await?;
            sleep(WARM_UP).await;
            let (bytes, seconds) = measure(&counts, job.duration()).await;
            let total: f64 = bytes.iter().sum();
            let squares: f64 = bytes.iter().map(|bytes| bytes * bytes).sum();
            let jain = total * total / (bytes.len() as f64 * squares);
            Ok(json!({ "bytes_per_s": total / seconds, "jain": jain }))
        }
        Scenario::Small | Scenario::SmallUncoalesced => {
            let counts = sink(mux, job.streams, 2 * MESSAGE).await?;
            // Queues have grown and windows opened by then.
            sleep(2 * WARM_UP).await;
            let before = heap();
            let (bytes, seconds) = measure(&counts, job.duration()).await;
            let after = heap();
            let messages = bytes.iter().sum::<f64>() / MESSAGE as f64;
            Ok(json!({
                "messages_per_s": messages / seconds,
                "allocations_per_message": allocations_per(messages, before, after),
            }))
        }
        Scenario::Churn => loop {
            let (mut tx, mut rx) = mux.accept().await?;
            in_background(async move {
                while rx.read(&mut [0; 16]).await? > 0 {}
                tx.write(Bytes::from_static(b"x"), true).await
            });
        },
        Scenario::Idle => {
            let _held = accept_all(mux, job.streams + 1).await?;
            pending().await
        }
        Scenario::Killed => pending().await,
        Scenario::Echo => {
            let (tx, rx) = mux.accept().await?;
            in_background(give_back(tx, rx));
            let counts = sink(mux, FLOODS, PIECE).await?;
            loop {
                // The opener measures; what has arrived until now is all it needs from here.
                RECEIVED.store(counts.iter().map(Cell::get).sum(), ORDER);
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Bytes of bulk that the acceptor has read.
static RECEIVED: AtomicU64 = AtomicU64::new(0);
/// The figures are there.
static MEASURED: AtomicBool = AtomicBool::new(false);
pub(crate) const ORDER: Ordering = Ordering::Relaxed;

/// Opens `streams` streams and fills each as fast as it goes. Every stream begins with one byte,
/// which is answered by one, so that a stream is whole before bulk is in its way.
async fn flood(mux: &impl Mux, streams: usize) -> Result<()> {
    let piece = Bytes::from(vec![7; PIECE]);
    for (tx, rx) in open_all(mux, streams).await? {
        in_background(fill(tx, rx, piece.clone()));
    }
    Ok(())
}

async fn fill(mut tx: impl Tx, _kept: impl Rx, piece: Bytes) -> Result<Infallible> {
    loop {
        tx.write(piece.clone(), false).await?;
        yield_now().await;
    }
}

async fn give_back(mut tx: impl Tx, mut rx: impl Rx) -> Result<Infallible> {
    let message = Bytes::from_static(&[7; MESSAGE]);
    loop {
        read_message(&mut rx).await?;
        tx.write(message.clone(), false).await?;
    }
}

/// Runs a task whose failure is the failure of the measurement.
fn in_background<T>(task: impl Future<Output = Result<T>> + 'static) {
    spawn_local(async {
        // What breaks once the figures are there is the end of the process, not a failure.
        if let Err(error) = task.await
            && !MEASURED.load(ORDER)
        {
            eprintln!("bench-mux: {error:#}");
            std::process::exit(1);
        }
    });
}

pub(crate) async fn open_all<M: Mux>(mux: &M, streams: usize) -> Result<Vec<(M::Tx, M::Rx)>> {
    let mut opened = Vec::with_capacity(streams);
    for _ in 0..streams {
        let (mut tx, mut rx) = mux.open().await?;
        tx.write(Bytes::from_static(b"x"), false).await?;
        ensure!(rx.read(&mut [0; 16]).await? == 1, "the answer is one byte");
        opened.push((tx, rx));
    }
    Ok(opened)
}

/// The counterpart of [`open_all`].
pub(crate) async fn accept_all<M: Mux>(mux: &M, streams: usize) -> Result<Vec<(M::Tx, M::Rx)>> {
    let mut accepted = Vec::with_capacity(streams);
    for _ in 0..streams {
        let (mut tx, mut rx) = mux.accept().await?;
        rx.read(&mut [0; 16]).await?;
        tx.write(Bytes::from_static(b"x"), false).await?;
        accepted.push((tx, rx));
    }
    Ok(accepted)
}

/// Accepts `streams` streams and a task each that reads and counts.
async fn sink(mux: &impl Mux, streams: usize, scratch: usize) -> Result<Rc<[Cell<u64>]>> {
    let counts: Rc<[Cell<u64>]> = (0..streams).map(|_| Cell::new(0)).collect();
    for number in 0..streams {
        let (mut tx, mut rx) = mux.accept().await?;
        rx.read(&mut [0; 16]).await?;
        tx.write(Bytes::from_static(b"x"), false).await?;
        in_background(count(tx, rx, Rc::clone(&counts), number, vec![0; scratch]));
    }
    Ok(counts)
}

async fn count(
    _kept: impl Tx,
    mut rx: impl Rx,
    counts: Rc<[Cell<u64>]>,
    number: usize,
    mut scratch: Vec<u8>,
) -> Result<Infallible> {
    loop {
        let bytes = rx.read(&mut scratch).await?;
        ensure!(bytes > 0, "bulk has ended");
        counts[number].set(counts[number].get() + bytes as u64);
    }
}

/// What is counted in `duration`, and the exact time.
async fn measure(counts: &[Cell<u64>], duration: Duration) -> (Vec<f64>, f64) {
    let before: Vec<u64> = counts.iter().map(Cell::get).collect();
    let start = Instant::now();
    sleep(duration).await;
    let seconds = start.elapsed().as_secs_f64();
    MEASURED.store(true, ORDER);
    (
        counts.iter().zip(before).map(|(count, before)| (count.get() - before) as f64).collect(),
        seconds,
    )
}

async fn go_round(mux: &impl Mux, streams: usize) -> Result<Value> {
    let message = Bytes::from_static(&[7; MESSAGE]);
    let mut opened = open_all(mux, streams).await?;
    loop {
        for turn in opened.chunks_mut(TURN) {
            for (tx, _) in turn {
                tx.write(message.clone(), false).await?;
            }
            yield_now().await;
        }
    }
}

async fn churn(mux: &'static impl Mux, duration: Duration) -> Result<Value> {
    let done = Rc::new(Cell::new(0u64));
    for _ in 0..CHURNERS {
        in_background(open_and_close(mux, Rc::clone(&done)));
    }
    sleep(WARM_UP).await;
    let (streams, seconds) = measure(std::slice::from_ref(&*done), duration).await;
    ensure!(streams[0] > 0.0, "no stream came to its end");
    Ok(json!({ "streams_per_s": streams[0] / seconds }))
}

async fn open_and_close(mux: &impl Mux, done: Rc<Cell<u64>>) -> Result<Infallible> {
    loop {
        let (mut tx, mut rx) = mux.open().await?;
        tx.write(Bytes::from_static(b"x"), true).await?;
        while rx.read(&mut [0; 16]).await? > 0 {}
        done.set(done.get() + 1);
    }
}

async fn idle<M: Mux>(mux: &M, streams: usize, heap: AskHeap) -> Result<Value> {
    // The first stream pays for what a connection needs once.
    let _first = open_all(mux, 1).await?;
    sleep(WARM_UP).await;
    let before = heap();
    let held = open_all(mux, streams).await?;
    sleep(WARM_UP).await;
    let after = heap();
    MEASURED.store(true, ORDER);
    drop(held);
    bytes_per_stream(before, after, streams)
}

/// What `streams` streams take at both ends.
pub(crate) fn bytes_per_stream(
    before: Option<Heap>,
    after: Option<Heap>,
    streams: usize,
) -> Result<Value> {
    let (before, after) = before.zip(after).context("this program's allocator does not count")?;
    let bytes = after.bytes.saturating_sub(before.bytes) as f64;
    Ok(json!({ "bytes_per_stream": bytes / streams as f64 }))
}

/// How often memory was allocated for each of `messages`, if it was counted.
pub(crate) fn allocations_per(
    messages: f64,
    before: Option<Heap>,
    after: Option<Heap>,
) -> Option<f64> {
    let (before, after) = before.zip(after)?;
    Some((after.allocations - before.allocations) as f64 / messages)
}

async fn read_message(rx: &mut impl Rx) -> Result<()> {
    let (mut scratch, mut left) = ([0; MESSAGE], MESSAGE);
    while left > 0 {
        let bytes = rx.read(&mut scratch[..left]).await?;
        ensure!((1..=left).contains(&bytes), "the stream ended, or a message was too long");
        left -= bytes;
    }
    Ok(())
}

async fn echo(mux: &impl Mux, duration: Duration) -> Result<Value> {
    let message = Bytes::from_static(&[7; MESSAGE]);
    let (mut tx, mut rx) = mux.open().await?;
    let mut base_ms = f64::INFINITY;
    let mut samples = Vec::new();
    let mut window: Option<(Instant, u64)> = None;
    for number in 0.. {
        if number == BASE_ECHOES {
            flood(mux, FLOODS).await?;
            sleep(2 * WARM_UP).await;
            window = Some((Instant::now(), RECEIVED.load(ORDER)));
        }
        if window.is_some_and(|(start, _)| start.elapsed() >= duration) {
            break;
        }
        let start = Instant::now();
        tx.write(message.clone(), false).await?;
        read_message(&mut rx).await?;
        let elapsed_ms = start.elapsed().as_secs_f64() * 1e3;
        match window {
            None => base_ms = base_ms.min(elapsed_ms),
            Some(_) => samples.push(elapsed_ms),
        }
        sleep(ECHO_PAUSE).await;
    }
    MEASURED.store(true, ORDER);
    let (start, before) = window.context("no bulk")?;
    let bulk_bytes = (RECEIVED.load(ORDER) - before) as f64;
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize];
    Ok(json!({
        "base_ms": base_ms,
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "samples": samples.len(),
        "bulk_bytes_per_s": bulk_bytes / start.elapsed().as_secs_f64(),
    }))
}
