//! What messages and streams take of the heap, as the allocator sees it on the test's thread, which
//! both ends of the channel run on.

#[path = "../../../mux/tests/counting/allocator.rs"]
mod counting;

use bytes::Bytes;
use cmgmux_net::{Channel, End, RecvStream, SendStream, StreamKind};

use self::counting::{ALLOCATIONS, BYTES};
use crate::world::with_channel;

const MESSAGE: &[u8] = &[7; 300];

type Ends = (Vec<(SendStream, RecvStream)>, Vec<(SendStream, RecvStream)>);

/// Opens streams and lets a byte pass each way.
async fn open(opener: &Channel, acceptor: &Channel, streams: usize) -> Ends {
    let mut ends = (Vec::with_capacity(streams), Vec::with_capacity(streams));
    for _ in 0..streams {
        let (mut send, mut recv) = opener.try_open(StreamKind::Exchange).unwrap();
        send.send(Bytes::from_static(b"x"), End::None).unwrap();
        let mut incoming = acceptor.accept().await.unwrap();
        assert_eq!(incoming.recv.chunk().await.unwrap().unwrap().data, b"x"[..]);
        incoming.send.send(Bytes::from_static(b"y"), End::None).unwrap();
        assert_eq!(recv.chunk().await.unwrap().unwrap().data, b"y"[..]);
        ends.0.push((send, recv));
        ends.1.push((incoming.send, incoming.recv));
    }
    ends
}

/// Sends a message on each stream and waits until all have been read.
async fn go_round((writers, readers): &mut Ends) {
    for (send, _) in writers {
        send.write(Bytes::from_static(MESSAGE), End::None).await.unwrap();
    }
    for (_, recv) in readers {
        assert_eq!(recv.chunk().await.unwrap().unwrap().data, MESSAGE);
    }
}

#[test]
fn small_messages_in_a_steady_flow_take_no_memory_of_their_own() {
    with_channel("messages", |point, instance| async move {
        const STREAMS: usize = 200;
        const ROUNDS: usize = 50;
        let mut ends = open(&instance, &point, STREAMS).await;
        for _ in 0..ROUNDS {
            go_round(&mut ends).await;
        }
        let before = ALLOCATIONS.get();
        for _ in 0..ROUNDS {
            go_round(&mut ends).await;
        }
        let allocations = ALLOCATIONS.get() - before;
        // TLS takes some for each record, which holds 53 of the messages.
        let records = ROUNDS * STREAMS / 50;
        assert!(allocations <= 5 * records, "{allocations} allocations for {records} records");
    });
}

#[test]
fn an_idle_stream_takes_a_slot_an_entry_and_its_handles() {
    with_channel("idle", |point, instance| async move {
        const STREAMS: usize = 8_192;
        let _first = open(&instance, &point, 1).await;
        let before = BYTES.get();
        let ends = open(&instance, &point, STREAMS).await;
        let bytes = BYTES.get() - before;
        assert_eq!(ends.0.len(), STREAMS);
        assert!(bytes <= 2 * STREAMS * 168, "{} bytes a stream and side", bytes / STREAMS / 2);
    });
}
