//! Our channel at full load whose link is killed again and again: how long nothing arrives, and
//! whether a byte is lost.
//!
//! Every stream carries a known pattern both ways, and what is read is compared with it. The streams
//! of no rival outlive their connection.

use std::convert::Infallible;
use std::future::pending;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use cmgmux_net::{Arrival, Channel, RecvStream, SendStream};
use serde_json::{Value, json};
use socket2::{SockRef, Socket};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local, yield_now};

use crate::job::Job;
use crate::mux::Tx;
use crate::peers::cmgmux;
use crate::scenario::{FLOODS, MESSAGE, ORDER, PIECE, TURN, WARM_UP, accept_all, open_all};

/// Time at full load between two kills.
const PAUSE: Duration = Duration::from_millis(50);
/// Time that anything here may take beyond what it is measured for.
const LIMIT: Duration = Duration::from_secs(60);
/// Length of the pattern: prime, so that no size of message divides it.
const PERIOD: usize = 65_521;
/// No first bytes are awaited.
const NOTHING: u64 = u64::MAX;

/// The pattern twice, so that no piece reaches beyond its end.
static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let mut state = 1u32;
    let once: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(PERIOD)
    .collect();
    [&once[..], &once[..]].concat().into()
});

enum Event {
    /// At one end the first bytes have been read that were awaited.
    Arrived(Instant),
    /// One end has sent and read everything.
    Over(Result<()>),
}

/// What both ends share with the one who kills.
#[derive(Default)]
struct Shared {
    /// Another handle of the socket of each end.
    sockets: Mutex<[Option<Socket>; 2]>,
    /// How often the channel of each end has to have moved for bytes to be those that are awaited.
    awaited: [AtomicU64; 2],
    /// Nothing more is to be written.
    is_over: AtomicBool,
    written: AtomicU64,
    /// Bytes read that were as they should be.
    right: AtomicU64,
}

pub(crate) fn run(job: &Job) -> Result<Value> {
    ensure!(job.streams > FLOODS, "{FLOODS} streams are for bulk alone");
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (sender, events) = mpsc::channel();
    let shared: Arc<Shared> = Arc::default();
    let end = |number| End { number, shared: Arc::clone(&shared), events: sender.clone() };
    let (instance, point, streams) = (end(0), end(1), job.streams);
    spawn(sender.clone(), move || instance.accept(listener, streams));
    spawn(sender, move || point.dial(address, streams));
    let outages = kill(&shared, &events, job.duration())?;
    shared.is_over.store(true, ORDER);
    for _ in 0..2 {
        match events.recv_timeout(LIMIT).context("the streams do not end")? {
            Event::Over(result) => result?,
            Event::Arrived(_) => bail!("bytes over a link that nobody asked for"),
        }
    }
    let (written, right) = (shared.written.load(ORDER), shared.right.load(ORDER));
    Ok(json!({
        "median_ms": outages[outages.len() / 2],
        "max_ms": outages[outages.len() - 1],
        "kills": outages.len(),
        "bytes_written": written,
        "bytes_lost": written - right,
    }))
}

/// Runs one end on a thread of its own, which stays so that the other end sees no connection break.
fn spawn<F: Future<Output = Result<()>>>(
    events: Sender<Event>,
    end: impl FnOnce() -> F + Send + 'static,
) {
    std::thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async {
            events.send(Event::Over(end().await))?;
            pending().await
        })
    });
}

/// Kills the link again and again; gives the times until bytes have arrived over the next one at both
/// ends, in milliseconds, the shortest first.
fn kill(shared: &Shared, events: &Receiver<Event>, duration: Duration) -> Result<Vec<f64>> {
    let mut outages = Vec::new();
    arrived(events).context("at the start")?;
    std::thread::sleep(WARM_UP);
    let start = Instant::now();
    while start.elapsed() < duration {
        std::thread::sleep(PAUSE);
        let moves = outages.len() as u64 + 1;
        shared.awaited.iter().for_each(|awaited| awaited.store(moves, ORDER));
        let sockets = std::mem::take(&mut *shared.sockets());
        let killed = Instant::now();
        for socket in sockets.iter().flatten() {
            // The other end may have felt the first kill already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(sockets);
        let arrived = arrived(events).with_context(|| format!("after kill {moves}"))?;
        outages.push((arrived - killed).as_secs_f64() * 1e3);
    }
    outages.sort_by(f64::total_cmp);
    Ok(outages)
}

/// Waits until what is awaited has arrived at both ends.
fn arrived(events: &Receiver<Event>) -> Result<Instant> {
    let mut last = None;
    for _ in 0..2 {
        match events.recv_timeout(LIMIT).context("nothing arrives")? {
            Event::Arrived(when) => last = last.max(Some(when)),
            Event::Over(result) => bail!("an end is over: {result:?}"),
        }
    }
    last.context("nothing was awaited")
}

impl Shared {
    fn sockets(&self) -> std::sync::MutexGuard<'_, [Option<Socket>; 2]> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of the channel.
#[derive(Clone)]
struct End {
    /// 0 is the instance, 1 the connection point.
    number: usize,
    shared: Arc<Shared>,
    events: Sender<Event>,
}

impl End {
    async fn accept(self, listener: TcpListener, streams: usize) -> Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let Arrival::Hello(offer) = self.next_link(&listener).await? else {
            bail!("a resume of a channel that there never was");
        };
        let channel = cmgmux::agree(offer).await?;
        let (end, kept) = (self.clone(), channel.clone());
        spawn_local(async move {
            loop {
                // A link may die in its handshake, and is dialled again.
                if let Ok(Arrival::Resume(offer)) = end.next_link(&listener).await
                    && kept.is_offered(&offer)
                {
                    let _ = kept.resume(offer);
                }
            }
        });
        let streams = open_all(&channel, streams).await?;
        self.carry(&channel, streams).await
    }

    async fn next_link(&self, listener: &tokio::net::TcpListener) -> Result<Arrival> {
        let (socket, _) = listener.accept().await?;
        self.hold(&socket)?;
        cmgmux::receive(socket).await
    }

    async fn dial(self, address: SocketAddr, streams: usize) -> Result<()> {
        let socket = TcpStream::connect(address).await?;
        self.hold(&socket)?;
        let channel = cmgmux::greet(socket).await?;
        spawn_local(self.clone().keep(channel.clone(), address));
        let streams = accept_all(&channel, streams).await?;
        self.carry(&channel, streams).await
    }

    /// Dials again whenever the link is lost.
    async fn keep(self, channel: Channel, address: SocketAddr) -> Result<Infallible> {
        loop {
            channel.needs_link().await;
            let socket = TcpStream::connect(address).await?;
            self.hold(&socket)?;
            // A link may die in its handshake, and is dialled again.
            let _ = cmgmux::resume(&channel, socket).await;
        }
    }

    /// Keeps another handle of a socket, for it to be killed by.
    fn hold(&self, socket: &TcpStream) -> Result<()> {
        self.shared.sockets()[self.number] = Some(SockRef::from(socket).try_clone()?);
        Ok(())
    }

    /// Fills every stream and reads it, until all is over.
    async fn carry(&self, channel: &Channel, streams: Vec<(SendStream, RecvStream)>) -> Result<()> {
        let (mut bulk, mut tasks) = (Vec::new(), Vec::new());
        for (number, (tx, rx)) in streams.into_iter().enumerate() {
            bulk.push(Filled { tx, begin: number, written: 0 });
            tasks.push(spawn_local(self.clone().compare(channel.clone(), rx, number)));
        }
        let small = bulk.split_off(FLOODS);
        for stream in bulk {
            tasks.push(spawn_local(self.clone().fill(vec![stream], PIECE)));
        }
        tasks.push(spawn_local(self.clone().fill(small, MESSAGE)));
        for task in tasks {
            task.await??;
        }
        Ok(())
    }

    /// Goes round `streams` with pieces of `bytes`.
    async fn fill(self, mut streams: Vec<Filled>, bytes: usize) -> Result<()> {
        while !self.shared.is_over.load(ORDER) {
            for turn in streams.chunks_mut(TURN) {
                for stream in turn {
                    stream.write(bytes).await?;
                }
                yield_now().await;
            }
        }
        for stream in &mut streams {
            Tx::write(&mut stream.tx, Bytes::new(), true).await?;
            self.shared.written.fetch_add(stream.written as u64, ORDER);
        }
        Ok(())
    }

    /// Compares what arrives with the pattern. From a byte that is missing on, the rest differs.
    async fn compare(self, channel: Channel, mut rx: RecvStream, begin: usize) -> Result<()> {
        let mut right = 0;
        while let Some(chunk) = rx.chunk().await? {
            self.note(&channel);
            if chunk.data == pattern(begin + right, chunk.data.len()) {
                right += chunk.data.len();
            }
        }
        self.shared.right.fetch_add(right as u64, ORDER);
        Ok(())
    }

    /// Tells of bytes that have been read, if such are awaited. What the link before delivered has
    /// been read before the next is there: its readers were woken when it came.
    fn note(&self, channel: &Channel) {
        let awaited = &self.shared.awaited[self.number];
        let moves = awaited.load(ORDER);
        if moves != NOTHING && channel.stats().resumes >= moves {
            awaited.store(NOTHING, ORDER);
            // Nobody listens once the figures are there.
            let _ = self.events.send(Event::Arrived(Instant::now()));
        }
    }
}

/// A stream and where its pattern stands.
struct Filled {
    tx: SendStream,
    begin: usize,
    written: usize,
}

impl Filled {
    async fn write(&mut self, bytes: usize) -> Result<()> {
        Tx::write(&mut self.tx, pattern(self.begin + self.written, bytes), false).await?;
        self.written += bytes;
        Ok(())
    }
}

/// The `bytes` at a place of the endless pattern; at most [`PERIOD`].
fn pattern(place: usize, bytes: usize) -> Bytes {
    let start = place % PERIOD;
    PATTERN.slice(start..start + bytes)
}
