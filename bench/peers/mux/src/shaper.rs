//! A slow and long link in user space: a rate, a delay, and a queue that holds so much and no more.
//!
//! Bytes leave the queue at the rate and arrive after the delay. A full queue takes nothing from a
//! TCP connection, and drops datagrams.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};

use crate::job::{Job, Path, Shape};

/// Bytes taken from a TCP connection at once.
const PIECE: usize = 4 * 1024;
/// The kernel's own buffer in front of the queue, kept small: it is not part of the shape.
const SOCKET_BUFFER: usize = 16 * 1024;
/// Loopback's own segments of 64 KiB would not fit into such a buffer.
const SEGMENT: u32 = 1448;

/// One direction of the link.
struct Queue {
    shape: Shape,
    /// When the last byte taken will have left the queue.
    empty_at: Instant,
}

impl Queue {
    fn new(shape: &Shape) -> Self {
        Self { shape: shape.clone(), empty_at: Instant::now() }
    }

    fn bytes_per_s(&self) -> f64 {
        self.shape.bits_per_s / 8.0
    }

    /// How long until `bytes` have room.
    fn wait(&self, bytes: usize) -> Duration {
        let room = self.shape.buffer_bytes - bytes as f64;
        let queued = self.empty_at.saturating_duration_since(Instant::now());
        queued.saturating_sub(Duration::from_secs_f64(room.max(0.0) / self.bytes_per_s()))
    }

    /// Takes `bytes` and says when they arrive.
    fn take(&mut self, bytes: usize) -> Instant {
        let duration = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s());
        self.empty_at = self.empty_at.max(Instant::now()) + duration;
        self.empty_at + Duration::from_secs_f64(self.shape.delay_ms / 1e3)
    }
}

/// Shapes TCP connections to `target`; gives the address that leads there.
pub(crate) fn stream(target: SocketAddr, shape: &Shape) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    SockRef::from(&listener).set_recv_buffer_size(SOCKET_BUFFER)?;
    SockRef::from(&listener).set_tcp_mss(SEGMENT)?;
    let address = listener.local_addr()?;
    let shape = shape.clone();
    spawn(move || -> Result<()> {
        loop {
            let (near, _) = listener.accept()?;
            let far = dial(target)?;
            for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
                to.set_nodelay(true)?;
                let (pieces, due) = channel();
                let queue = Queue::new(&shape);
                spawn(move || take_pieces(from, queue, &pieces));
                spawn(move || deliver(&due, |piece| (&to).write_all(piece)));
            }
        }
    });
    Ok(address)
}

fn dial(target: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_tcp_mss(SEGMENT)?;
    socket.connect(&target.into())?;
    Ok(socket.into())
}

fn take_pieces(mut from: TcpStream, mut queue: Queue, pieces: &Sender<(Instant, Vec<u8>)>) {
    let mut buffer = [0; PIECE];
    loop {
        sleep(queue.wait(PIECE));
        let Ok(length @ 1..) = from.read(&mut buffer) else { return };
        let Ok(()) = pieces.send((queue.take(length), buffer[..length].to_vec())) else { return };
    }
}

fn deliver(due: &Receiver<(Instant, Vec<u8>)>, mut to: impl FnMut(&[u8]) -> std::io::Result<()>) {
    for (at, piece) in due {
        sleep(at.saturating_duration_since(Instant::now()));
        if to(&piece).is_err() {
            return;
        }
    }
}

/// Shapes datagrams to `target` and back to whoever sent the first one.
pub(crate) fn datagrams(target: SocketAddr, shape: &Shape) -> Result<SocketAddr> {
    let near = Arc::new(UdpSocket::bind("127.0.0.1:0")?);
    let far = Arc::new(UdpSocket::bind("127.0.0.1:0")?);
    let address = near.local_addr()?;
    let client = Arc::new(OnceLock::new());
    let ways = [(Arc::clone(&near), Arc::clone(&far), true), (far, near, false)];
    for (from, to, outward) in ways {
        let (pieces, due) = channel::<(Instant, Vec<u8>)>();
        let (sender, receiver) = (Arc::clone(&client), Arc::clone(&client));
        let mut queue = Queue::new(shape);
        spawn(move || {
            let mut buffer = [0; 64 * 1024];
            while let Ok((length, from)) = from.recv_from(&mut buffer) {
                if outward {
                    sender.get_or_init(|| from);
                }
                if queue.wait(length) > Duration::ZERO {
                    continue;
                }
                let Ok(()) = pieces.send((queue.take(length), buffer[..length].to_vec())) else {
                    return;
                };
            }
        });
        spawn(move || {
            deliver(&due, |piece| {
                let to_address = if outward { Some(&target) } else { receiver.get() };
                // A datagram that cannot be sent is lost, as any may be.
                let _ = to_address.map(|address| to.send_to(piece, address));
                Ok(())
            });
        });
    }
    Ok(address)
}

/// Shapes connections to the job's target until standard input ends; says its address at once.
pub(crate) fn serve(job: &Job) -> Result<Value> {
    let Path::Shaped(shape) = &job.path else { bail!("a shaper needs a shape") };
    let address = stream(job.target.context("a shaper needs a target")?, shape)?;
    println!("{address}");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(Value::Null)
}
