//! What small messages cost on the way to the network: TLS records, writes, bytes.

use std::fs;

use bytes::Bytes;
use cmgmux_net::{End, StreamKind};

use crate::world::with_channel;

const MESSAGE: &[u8] = &[7; 300];
/// Of a frame's header.
const HEADER_BYTES: usize = 8;

/// Writes that this thread, on which both ends run, has asked the kernel for.
fn write_calls() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("syscw: "));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_thousand_small_messages_share_records_writes_and_acknowledgements() {
    with_channel("cost", |point, instance| async move {
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
        let (before, calls) = (instance.stats(), write_calls());
        for _ in 0..ROUNDS {
            for (send, ..) in &mut ends {
                send.write(Bytes::from_static(MESSAGE), End::Part).await.unwrap();
            }
            for (_, incoming, _) in &mut ends {
                assert_eq!(incoming.recv.chunk().await.unwrap().unwrap().data, MESSAGE);
            }
        }
        let (after, calls) = (instance.stats(), write_calls() - calls);
        let records = after.batches_sent - before.batches_sent;
        let bytes = after.bytes_sent - before.bytes_sent;
        // 53 messages fit into a record, so a round needs 19.
        assert!(records <= 24 * ROUNDS, "{records} records in {ROUNDS} rounds");
        // What the kernel takes in one go, and the acknowledgements and credit of the other end.
        assert!((1..=10 * ROUNDS).contains(&calls), "{calls} writes in {ROUNDS} rounds");
        let least = ROUNDS * (STREAMS * (MESSAGE.len() + HEADER_BYTES)) as u64;
        assert!((least..=least + least / 1_000).contains(&bytes), "{bytes} bytes for {least}");
    });
}
