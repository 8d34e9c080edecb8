//! The ceiling: one TLS connection with nothing on top, blocking, a thread each end.
//!
//! Plaintext is copied once into TLS and never out of it, ciphertext goes to and from the socket without
//! a buffer between, and no more is under way than the processor's caches hold.

use std::io::{BufRead, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustls::{ClientConnection, Connection, ServerConnection};
use serde_json::{Value, json};
use socket2::SockRef;

use crate::job::Job;
use crate::scenario::{MESSAGE, Scenario};
use crate::tls;

/// Plaintext of a full record.
const RECORD: usize = 16 * 1024;
/// Records that one system call writes.
const RECORDS_A_WRITE: usize = 4;
/// What the kernel takes ahead of the reader. Left alone it takes some MiB, which are cold when read.
const SEND_BUFFER: usize = 512 * 1024;
const HEADER: usize = 8;
const WARM_UP: Duration = Duration::from_millis(500);

/// Plaintext received.
static RECEIVED: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicBool = AtomicBool::new(false);

pub(crate) fn run(job: &Job) -> Result<Value> {
    let (record, frame) = match job.scenario {
        Scenario::Bulk => (RECORD, RECORD),
        Scenario::Small => (RECORD, HEADER + MESSAGE),
        Scenario::SmallUncoalesced => (HEADER + MESSAGE, HEADER + MESSAGE),
        _ => bail!("a bare TLS connection has no streams"),
    };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let writer = std::thread::spawn(move || -> Result<()> {
        let socket = TcpStream::connect(address)?;
        let tls = ClientConnection::new(Arc::new(tls::client_config(b"raw")?), tls::server_name())?;
        write(socket, tls.into(), record / frame, frame)
    });
    let reader = std::thread::spawn(move || -> Result<()> {
        let (socket, _) = listener.accept()?;
        read(socket, ServerConnection::new(Arc::new(tls::server_config(b"raw")?))?.into(), frame)
    });
    std::thread::sleep(WARM_UP);
    let (start, before) = (Instant::now(), RECEIVED.load(Ordering::Relaxed));
    std::thread::sleep(job.duration());
    let frames = (RECEIVED.load(Ordering::Relaxed) - before) as f64;
    let per_s = frames / start.elapsed().as_secs_f64();
    if writer.is_finished() || reader.is_finished() {
        bail!("an end stopped: {:?} {:?}", writer.join(), reader.join());
    }
    OVER.store(true, Ordering::Relaxed);
    Ok(match job.scenario {
        Scenario::Bulk => json!({ "bytes_per_s": per_s * RECORD as f64, "jain": 1.0 }),
        _ => json!({ "messages_per_s": per_s }),
    })
}

fn write(mut socket: TcpStream, mut tls: Connection, frames: usize, frame: usize) -> Result<()> {
    socket.set_nodelay(true)?;
    SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    tls.set_buffer_limit(None);
    let mut record = vec![0; frames * frame];
    let message = vec![7; frame - HEADER];
    while !OVER.load(Ordering::Relaxed) {
        for _ in 0..RECORDS_A_WRITE {
            // A multiplexer cannot do without a header and a copy of small payloads.
            for place in record.chunks_mut(frame).filter(|_| frame < RECORD) {
                place[..HEADER].copy_from_slice(&(frame as u64).to_le_bytes());
                place[HEADER..].copy_from_slice(&message);
            }
            tls.writer().write_all(&record)?;
        }
        while tls.wants_write() {
            tls.write_tls(&mut socket)?;
        }
    }
    Ok(())
}

fn read(mut socket: TcpStream, mut tls: Connection, frame: usize) -> Result<()> {
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    let mut partial = 0;
    while !OVER.load(Ordering::Relaxed) {
        tls.read_tls(&mut socket)?;
        tls.process_new_packets()?;
        while let Ok(plaintext @ [_, ..]) = tls.reader().fill_buf() {
            let bytes = plaintext.len();
            tls.reader().consume(bytes);
            partial += bytes;
            RECEIVED.fetch_add((partial / frame) as u64, Ordering::Relaxed);
            partial %= frame;
        }
    }
    Ok(())
}
