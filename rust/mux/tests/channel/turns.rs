//! Who is served when: small before bulk, bulk in turn, nobody for ever.

use bytes::Bytes;
use cmgmux_mux::{Config, End, Limits, Side, StreamCode, StreamId, Timestamp};

use crate::frames::split;
use crate::pair::Endpoint;

/// An instance whose streams have all the credit they want.
fn sender() -> Endpoint {
    let limits = Limits { window_bytes: 1 << 30, ..Limits::default() };
    let config = Config { queue_bytes: 1 << 24, local: limits, peer: limits, ..Config::default() };
    Endpoint::new(Side::Instance, config)
}

/// The streams of one batch's frames and the bytes of each.
fn batch(end: &mut Endpoint) -> Vec<(StreamId, usize)> {
    let batch = end.acknowledged_batch(Timestamp::ZERO).expect("something is to be sent");
    split(&batch).iter().map(|(header, frame)| (header.stream, frame.len())).collect()
}

fn send(end: &mut Endpoint, id: StreamId, bytes: usize) {
    end.channel.send(id, Bytes::from(vec![0; bytes]), End::Part).unwrap();
}

#[test]
fn a_stream_that_opens_with_bulk_waits_for_small_messages_from_its_first_byte() {
    let mut end = sender();
    let bulk = end.open().unwrap();
    send(&mut end, bulk, 200_000);
    let small = end.open().unwrap();
    send(&mut end, small, 300);
    assert_eq!(batch(&mut end)[0].0, small);
    assert_eq!(batch(&mut end)[0].0, bulk);
}

#[test]
fn a_message_waits_for_the_next_batch_where_resets_and_stops_leave_it_no_room() {
    for (resets, stops) in [(true, true), (true, false), (false, true)] {
        for bytes in [1, 12, 20, 40, 60, 300, 2_000] {
            let mut end = sender();
            let id = end.open().unwrap();
            let given_up: Vec<_> = (0..2_000).map(|_| end.open().unwrap()).collect();
            while end.acknowledged_batch(Timestamp::ZERO).is_some() {}
            for id in given_up {
                if resets {
                    end.channel.reset(id, StreamCode::CANCELLED);
                }
                if stops {
                    end.channel.stop(id, StreamCode::CANCELLED);
                }
            }
            send(&mut end, id, bytes);
            let mut sent = 0;
            while let Some(batch) = end.acknowledged_batch(Timestamp::ZERO) {
                assert!(batch.len() <= 16 * 1024 + 32, "a batch of {} bytes", batch.len());
                let frames = split(&batch);
                let data = frames.iter().filter(|(header, _)| header.stream == id);
                sent += data.map(|(header, _)| header.length as usize).sum::<usize>();
            }
            assert_eq!(sent, bytes);
        }
    }
}

#[test]
fn bulk_without_credit_holds_nobody_up() {
    let limits = Limits { window_bytes: 16 * 1024, ..Limits::default() };
    let config = Config { queue_bytes: 1 << 24, peer: limits, ..Config::default() };
    let mut end = Endpoint::new(Side::Instance, config);
    let ids: Vec<_> = (0..3).map(|_| end.open().unwrap()).collect();
    for id in &ids[..2] {
        send(&mut end, *id, 200_000);
        while end.acknowledged_batch(Timestamp::ZERO).is_some() {}
        send(&mut end, *id, 1);
    }
    send(&mut end, ids[2], 200_000);
    assert_eq!(batch(&mut end)[0].0, ids[2]);
}

#[test]
fn bulk_streams_whose_parts_fill_turns_badly_get_no_less_in_the_long_run() {
    let mut end = sender();
    let ids: Vec<_> = (0..4).map(|_| end.open().unwrap()).collect();
    // Frames of 7,744 bytes leave almost a KiB of a turn unused, the others hardly anything.
    for (id, part) in ids.iter().zip([7_736, 100, 16_000, 15_900]) {
        for _ in 0..(12 << 20) / part {
            send(&mut end, *id, part);
        }
    }
    let mut served = [0; 4];
    for _ in 0..2_400 {
        for (stream, bytes) in batch(&mut end) {
            served[ids.iter().position(|id| *id == stream).unwrap()] += bytes;
        }
        let spread = served.iter().max().unwrap() - served.iter().min().unwrap();
        assert!(spread <= 2 * 16 * 1024, "{served:?}");
    }
}

#[test]
fn small_messages_leave_in_the_order_in_which_they_were_sent() {
    let mut end = sender();
    let ids: Vec<_> = (0..200).map(|_| end.open().unwrap()).collect();
    while end.acknowledged_batch(Timestamp::ZERO).is_some() {}
    for id in ids.iter().rev() {
        send(&mut end, *id, 300);
    }
    let mut left = Vec::new();
    for _ in 0..4 {
        left.extend(batch(&mut end).into_iter().map(|(stream, _)| stream));
    }
    assert!(left.iter().eq(ids.iter().rev()), "{left:?}");
}
