//! What small messages cost on the way to the network: TLS records, writes, bytes.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use cmgmux_net::{End, StreamKind};

use crate::world::{Pki, join, listener, run};

const MESSAGE: &[u8] = &[7; 300];
/// Of a frame's header.
const HEADER_BYTES: usize = 8;
/// What TLS adds to a record: its header, the type of what is in it, the tag.
const RECORD_BYTES: u64 = 5 + 1 + 16;

/// Writes that this thread, on which both ends run, has asked the kernel for.
fn write_calls() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("syscw: "));
    line.unwrap().parse().unwrap()
}

/// What has passed on the wire.
#[derive(Default)]
struct Passed {
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Passed {
    fn now(&self) -> [u64; 2] {
        [&self.records, &self.bytes].map(|counter| counter.load(Ordering::Relaxed))
    }

    /// Passes TLS records on and counts them, until either side ends.
    fn relay(&self, from: &TcpStream, mut to: &TcpStream) -> std::io::Result<()> {
        let mut from = BufReader::with_capacity(64 * 1024, from);
        loop {
            let mut record = vec![0; 5];
            from.read_exact(&mut record)?;
            let length = u16::from_be_bytes([record[3], record[4]]);
            record.resize(5 + usize::from(length), 0);
            from.read_exact(&mut record[5..])?;
            self.records.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(record.len() as u64, Ordering::Relaxed);
            to.write_all(&record)?;
        }
    }
}

/// A way to `target` for one connection, on threads of its own, that counts what comes back.
fn counting_relay(target: SocketAddr) -> (SocketAddr, Arc<Passed>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let passed = Arc::new(Passed::default());
    let counters = Arc::clone(&passed);
    thread::spawn(move || {
        let (near, far) = (listener.accept().unwrap().0, TcpStream::connect(target).unwrap());
        for socket in [&near, &far] {
            socket.set_nodelay(true).unwrap();
        }
        thread::scope(|scope| {
            // They end with their sockets.
            scope.spawn(|| Passed::default().relay(&near, &far));
            scope.spawn(|| counters.relay(&far, &near));
        });
    });
    (address, passed)
}

#[test]
fn a_thousand_small_messages_share_records_writes_and_acknowledgements() {
    run(async {
        let (listener, address) = listener();
        let (address, passed) = counting_relay(address);
        let (point, instance) = join(&Pki::new("cost"), address, &listener).await;
        const STREAMS: usize = 1_000;
        const ROUNDS: u64 = 20;
        let mut ends = Vec::new();
        for _ in 0..STREAMS {
            let (mut send, recv) = instance.try_open(StreamKind::Exchange).unwrap();
            send.send(Bytes::from_static(b"x"), End::Part).unwrap();
            let mut incoming = point.accept().await.unwrap();
            incoming.recv.chunk().await.unwrap();
            ends.push((send, incoming, recv));
        }
        let ([records, bytes], calls) = (passed.now(), write_calls());
        for _ in 0..ROUNDS {
            for (send, ..) in &mut ends {
                send.write(Bytes::from_static(MESSAGE), End::Part).await.unwrap();
            }
            for (_, incoming, _) in &mut ends {
                assert_eq!(incoming.recv.chunk().await.unwrap().unwrap().data, MESSAGE);
            }
        }
        let calls = write_calls() - calls;
        let [records, bytes] = [passed.now()[0] - records, passed.now()[1] - bytes];
        // 53 messages fit into a record, so a round needs 19.
        assert!((19 * ROUNDS..=24 * ROUNDS).contains(&records), "{records} in {ROUNDS} rounds");
        // What the kernel takes in one go, and the acknowledgements and credit of the other end.
        assert!((1..=10 * ROUNDS).contains(&calls), "{calls} writes in {ROUNDS} rounds");
        let least = ROUNDS * (STREAMS * (MESSAGE.len() + HEADER_BYTES)) as u64;
        let most = least + least / 1_000 + 24 * ROUNDS * RECORD_BYTES;
        assert!((least..=most).contains(&bytes), "{bytes} bytes for {least}");
    });
}
