//! What the channel promises, one promise a test.

use bytes::{Bytes, BytesMut};
use cmgmux_mux::frame::{Header, kind};
use cmgmux_mux::{CloseCode, Config, End, Expiry, Limits, StreamCode, StreamKind, UsageError};

use crate::pair::{Endpoint, Pair};

fn frames(mut bytes: &[u8]) -> Vec<Header> {
    let mut headers = Vec::new();
    while let Some(header) = Header::decode(bytes).unwrap() {
        bytes = &bytes[header.frame_bytes()..];
        headers.push(header);
    }
    headers
}

#[test]
fn an_exchange_without_bodies_takes_one_frame_each_way() {
    let mut pair = Pair::new(&Config::default());
    let id = pair.instance.open().unwrap();
    pair.instance.channel.send(id, Bytes::from_static(b"head"), End::Stream).unwrap();
    let request = pair.instance.batch(pair.now).unwrap();
    assert_eq!(frames(&request).len(), 1);
    pair.point.wire.extend(request);
    pair.point.deliver(pair.now, usize::MAX).unwrap();
    assert_eq!(pair.point.app.streams[0].data, b"head");
    pair.point.channel.send(id, Bytes::from_static(b"answer"), End::Stream).unwrap();
    let answer = pair.point.batch(pair.now).unwrap();
    let kinds: Vec<u8> = frames(&answer).iter().map(|header| header.kind).collect();
    assert_eq!(kinds, [kind::ACK, kind::DATA]);
    assert!(pair.point.app.streams[0].retired, "both halves have ended");
}

#[test]
fn a_stream_arrives_as_what_it_was_opened_for() {
    let mut pair = Pair::new(&Config::default());
    for kind in [StreamKind::Control, StreamKind::Exchange] {
        pair.instance.open_as(kind).unwrap();
        pair.settle();
        assert_eq!(pair.point.app.streams.last().unwrap().kind, Some(kind));
    }
}

#[test]
fn everything_returns_to_its_baseline_when_streams_end() {
    let mut pair = Pair::new(&Config::default());
    for round in 0..3 {
        for _ in 0..1_000 {
            let id = pair.instance.open().unwrap();
            pair.instance.channel.send(id, Bytes::from(vec![1; 300]), End::Stream).unwrap();
        }
        pair.settle_acks();
        assert_eq!(pair.instance.channel.counters().live, 1_000);
        for stream in std::mem::take(&mut pair.point.app.accepted) {
            let id = pair.point.app.streams[stream].id.unwrap();
            pair.point.channel.reset(id, StreamCode::CANCELLED);
        }
        pair.settle_acks();
        for _ in 0..1_000 {
            pair.point.channel.complete();
        }
        for end in [&pair.point, &pair.instance] {
            let counters = end.channel.counters();
            let left = (counters.live, counters.ring_bytes, counters.queued_bytes);
            assert_eq!((left, counters.unfinished), ((0, 0, 0), 0), "round {round}");
        }
    }
}

// R-TICKET-2, R-TICKET-4
#[test]
fn an_opener_waits_for_tickets_and_gets_them_when_handlers_end() {
    let limits = Limits { max_streams: 16, ..Limits::default() };
    let mut pair = Pair::new(&Config { local: limits, peer: limits, ..Config::default() });
    let ids: Vec<_> = (0..16).map(|_| pair.instance.open().unwrap()).collect();
    assert_eq!(pair.instance.open(), Err(UsageError::NoTicket));
    for id in ids {
        pair.instance.channel.send(id, Bytes::new(), End::Stream).unwrap();
    }
    pair.settle();
    for stream in 0..16 {
        let id = pair.point.app.streams[stream].id.unwrap();
        pair.point.channel.send(id, Bytes::new(), End::Stream).unwrap();
    }
    pair.settle();
    assert_eq!(pair.instance.open(), Err(UsageError::NoTicket), "the handlers have not ended");
    pair.point.channel.complete();
    pair.settle();
    assert_eq!(pair.instance.app.tickets, 1);
    pair.instance.open().unwrap();
    assert_eq!(pair.instance.open(), Err(UsageError::NoTicket));
}

// R-CREDIT-5, R-CREDIT-7
#[test]
fn a_sleeping_reader_stalls_its_stream_alone() {
    let mut pair = Pair::new(&Config::default());
    let asleep = pair.instance.open().unwrap();
    let awake = pair.instance.open().unwrap();
    let chunk = Bytes::from(vec![9; 16 * 1024]);
    for _ in 0..4 {
        pair.instance.channel.send(asleep, chunk.clone(), End::None).unwrap();
    }
    pair.settle();
    for _ in 0..50 {
        pair.instance.channel.send(awake, chunk.clone(), End::None).unwrap();
        pair.settle();
        pair.point.consume_all(1);
    }
    pair.settle();
    let read = |stream: usize| pair.point.app.streams[stream].data.len();
    assert_eq!(read(1), 50 * chunk.len());
    assert!(read(0) <= 36 * 1024, "no more than the window: {}", read(0));
    assert!(pair.instance.channel.counters().queued_bytes <= 64 * 1024);
    pair.point.consume_all(0);
    pair.settle();
    assert_eq!(pair.point.app.streams[0].data.len(), 4 * chunk.len());
}

#[test]
fn a_full_queue_refuses_and_says_when_it_has_room() {
    let mut pair = Pair::new(&Config { queue_bytes: 16 * 1024, ..Config::default() });
    let id = pair.instance.open().unwrap();
    let chunk = Bytes::from(vec![0; 64 * 1024]);
    pair.instance.channel.send(id, chunk.clone(), End::None).unwrap();
    assert_eq!(pair.instance.channel.has_room(id), Ok(false));
    assert_eq!(pair.instance.channel.send(id, chunk, End::None), Err(UsageError::QueueFull));
    pair.settle();
    assert_eq!(pair.instance.app.streams[0].writable, 0, "the reader sleeps on most of it");
    pair.point.consume_all(0);
    pair.settle();
    assert_eq!(pair.instance.app.streams[0].writable, 1);
    assert_eq!(pair.instance.channel.has_room(id), Ok(true));
}

#[test]
fn a_small_message_overtakes_waiting_bulk() {
    let limits = Limits { window_bytes: 1 << 20, ..Limits::default() };
    let config = Config { queue_bytes: 1 << 20, local: limits, peer: limits, ..Config::default() };
    let mut pair = Pair::new(&config);
    let bulk = pair.instance.open().unwrap();
    pair.instance.channel.send(bulk, Bytes::from(vec![0; 1 << 19]), End::None).unwrap();
    pair.instance.batch(pair.now).unwrap();
    let small = pair.instance.open().unwrap();
    pair.instance.channel.send(small, Bytes::from(vec![1; 300]), End::Part).unwrap();
    let next = frames(&pair.instance.batch(pair.now).unwrap());
    assert_eq!(next.len(), 1, "small and bulk never share a batch");
    assert_eq!(next[0].stream, small);
}

#[test]
fn a_half_that_ran_empty_is_small_again() {
    let limits = Limits { window_bytes: 1 << 20, ..Limits::default() };
    let config = Config { queue_bytes: 1 << 20, local: limits, peer: limits, ..Config::default() };
    let mut pair = Pair::new(&config);
    let was_bulk = pair.instance.open().unwrap();
    pair.instance.channel.send(was_bulk, Bytes::from(vec![0; 200_000]), End::None).unwrap();
    while pair.instance.batch(pair.now).is_some() {}
    let bulk = pair.instance.open().unwrap();
    pair.instance.channel.send(bulk, Bytes::from(vec![0; 200_000]), End::None).unwrap();
    pair.instance.batch(pair.now).unwrap();
    pair.instance.channel.send(was_bulk, Bytes::from(vec![1; 300]), End::Part).unwrap();
    let next = frames(&pair.instance.batch(pair.now).unwrap());
    assert_eq!(next[0].stream, was_bulk);
}

#[test]
fn bulk_gets_an_eighth_while_small_is_saturated() {
    let limits = Limits { window_bytes: 1 << 30, ..Limits::default() };
    let config = Config { queue_bytes: 1 << 24, local: limits, peer: limits, ..Config::default() };
    let mut end = Endpoint::new(cmgmux_mux::Side::Instance, config);
    let bulk = end.open().unwrap();
    end.channel.send(bulk, Bytes::from(vec![0; 4 << 20]), End::None).unwrap();
    let small: Vec<_> = (0..2_000).map(|_| end.open().unwrap()).collect();
    let (mut of_bulk, mut all) = (0, 0);
    for round in 0..200 {
        for id in &small[..100] {
            end.channel.send(*id, Bytes::from(vec![1; 300]), End::Part).unwrap();
        }
        let batch = end.acknowledged_batch(cmgmux_mux::Timestamp::ZERO).unwrap();
        all += batch.len();
        if frames(&batch)[0].stream == bulk {
            of_bulk += batch.len();
        }
        assert!(batch.len() <= 16 * 1024, "round {round}: a batch fits one record");
    }
    let share = of_bulk as f64 / all as f64;
    assert!((0.11..0.16).contains(&share), "bulk was served {share}");
}

#[test]
fn backlogged_bulk_streams_are_served_alike() {
    let limits = Limits { window_bytes: 1 << 30, ..Limits::default() };
    let config = Config { queue_bytes: 1 << 24, local: limits, peer: limits, ..Config::default() };
    let mut end = Endpoint::new(cmgmux_mux::Side::Instance, config);
    let ids: Vec<_> = (0..10).map(|_| end.open().unwrap()).collect();
    for (number, id) in ids.iter().enumerate() {
        let chunk = Bytes::from(vec![0; 1_000 * (number + 1)]);
        for _ in 0..(3 << 20) / chunk.len() {
            end.channel.send(*id, chunk.clone(), End::Part).unwrap();
        }
    }
    let mut served = vec![0; ids.len()];
    for _ in 0..300 {
        let batch = end.acknowledged_batch(cmgmux_mux::Timestamp::ZERO).unwrap();
        for header in frames(&batch) {
            let stream = ids.iter().position(|id| *id == header.stream).unwrap();
            served[stream] += header.frame_bytes();
        }
    }
    let spread = served.iter().max().unwrap() - served.iter().min().unwrap();
    assert!(spread <= 2 * 16 * 1024, "{served:?}");
}

#[test]
fn a_reset_drops_what_is_queued_and_tells_the_peer_once() {
    let mut pair = Pair::new(&Config::default());
    let id = pair.instance.open().unwrap();
    pair.instance.channel.send(id, Bytes::from(vec![5; 60_000]), End::None).unwrap();
    pair.settle();
    pair.instance.channel.reset(id, StreamCode(0x101));
    pair.instance.channel.reset(id, StreamCode::INTERNAL);
    assert_eq!(pair.instance.channel.counters().queued_bytes, 0);
    pair.settle();
    assert_eq!(pair.point.app.streams[0].reset, Some(StreamCode(0x101)));
    pair.point.stop(id, StreamCode::CANCELLED);
    pair.point.channel.send(id, Bytes::new(), End::Stream).unwrap();
    pair.settle();
    assert_eq!(pair.instance.channel.counters().live, 0);
}

// R-STOP-1
#[test]
fn a_stop_is_answered_by_a_reset_with_its_code() {
    let mut pair = Pair::new(&Config::default());
    let id = pair.instance.open().unwrap();
    pair.instance.channel.send(id, Bytes::from_static(b"x"), End::None).unwrap();
    pair.settle();
    pair.point.stop(id, StreamCode::SLOW_CONSUMER);
    pair.settle();
    assert_eq!(pair.instance.app.streams[0].stopped, Some(StreamCode::SLOW_CONSUMER));
    let refused = pair.instance.channel.send(id, Bytes::from_static(b"y"), End::None);
    assert_eq!(refused, Err(UsageError::Closed));
}

// R-GOAWAY-1, R-GOAWAY-2, R-GOAWAY-3
#[test]
fn a_draining_end_refuses_new_streams_and_finishes_old_ones() {
    let mut pair = Pair::new(&Config::default());
    let old = pair.instance.open().unwrap();
    pair.instance.channel.send(old, Bytes::from_static(b"old"), End::None).unwrap();
    pair.settle();
    pair.point.channel.go_away(CloseCode::SHUTDOWN, std::time::Duration::from_secs(5));
    let crossing = pair.instance.open().unwrap();
    pair.settle();
    assert_eq!(pair.instance.app.draining, Some(CloseCode::SHUTDOWN));
    assert_eq!(pair.instance.app.streams[1].reset, Some(StreamCode::REFUSED));
    assert_eq!(pair.point.app.streams.len(), 1, "the application never saw {crossing}");
    assert_eq!(pair.instance.open(), Err(UsageError::Draining));
    pair.instance.channel.send(old, Bytes::from_static(b"!"), End::Stream).unwrap();
    pair.settle();
    assert_eq!(pair.point.app.streams[0].data, b"old!");
}

#[test]
fn a_close_carries_its_reason() {
    let mut pair = Pair::new(&Config::default());
    pair.point.channel.close(CloseCode::SHUTDOWN, "maintenance until four");
    pair.settle();
    let closed = pair.instance.app.closed.take().unwrap();
    assert_eq!(closed, (CloseCode::SHUTDOWN, "maintenance until four".to_owned()));
}

#[test]
fn a_stream_cancelled_before_it_went_out_leaves_nothing_behind() {
    let mut pair = Pair::new(&Config::default());
    let id = pair.instance.open().unwrap();
    pair.instance.channel.reset(id, StreamCode::CANCELLED);
    pair.instance.stop(id, StreamCode::CANCELLED);
    pair.instance.channel.release(id);
    pair.settle();
    assert_eq!(pair.point.app.streams[0].reset, Some(StreamCode::CANCELLED));
    assert!(pair.point.app.streams[0].retired);
    pair.point.channel.complete();
    pair.settle_acks();
    for end in [&pair.point, &pair.instance] {
        let counters = end.channel.counters();
        assert_eq!((counters.live, counters.unfinished, counters.ring_bytes), (0, 0, 0));
    }
}

// R-ACK-5
#[test]
fn the_replay_ring_stops_encoding_at_its_cap() {
    let limits = Limits { window_bytes: 1 << 24, ..Limits::default() };
    let config = Config {
        queue_bytes: 1 << 24,
        ring_bytes: 100_000,
        local: limits,
        peer: limits,
        ..Config::default()
    };
    let mut pair = Pair::new(&config);
    let id = pair.instance.open().unwrap();
    pair.instance.channel.send(id, Bytes::from(vec![0; 1 << 20]), End::Stream).unwrap();
    while let Some(batch) = pair.instance.batch(pair.now) {
        pair.point.wire.extend(batch);
    }
    let ring_bytes = pair.instance.channel.counters().ring_bytes;
    assert!((100_000..120_000).contains(&ring_bytes), "{ring_bytes}");
    pair.settle();
    assert_eq!(pair.point.app.streams[0].data.len(), 1 << 20);
}

// R-LIVE-3
#[test]
fn a_silent_peer_is_probed_and_then_given_up() {
    let config = Config::default();
    let mut end = Endpoint::new(cmgmux_mux::Side::Instance, config);
    let probe_at = end.channel.next_deadline();
    assert_eq!(end.channel.handle_timeout(probe_at), None);
    let probe = end.batch(probe_at).unwrap();
    assert_eq!(frames(&probe)[0].kind, kind::PING);
    let due = end.channel.next_deadline();
    assert_eq!(end.channel.handle_timeout(due), Some(Expiry::Link));
}

// R-FRAME-2
#[test]
fn input_is_taken_by_whole_frames_only() {
    let mut pair = Pair::new(&Config::default());
    let id = pair.instance.open().unwrap();
    pair.instance.channel.send(id, Bytes::from_static(b"hello"), End::None).unwrap();
    let batch = pair.instance.batch(pair.now).unwrap();
    let mut input = BytesMut::from(&batch[..batch.len() - 1]);
    let Pair { point, now, .. } = &mut pair;
    point.channel.handle_input(*now, &mut input, &mut point.app).unwrap();
    assert_eq!(input.len(), batch.len() - 1);
    assert!(point.app.streams.is_empty());
}

// R-OPEN-3
#[test]
fn an_index_is_free_at_the_acceptor_before_its_opener_uses_it_again() {
    let mut pair = Pair::new(&Config { queue_bytes: 1 << 20, ..Config::default() });
    let id = pair.point.open().unwrap();
    pair.point.channel.send(id, Bytes::from_static(b"q"), End::Stream).unwrap();
    pair.settle();
    // The answer waits as bulk when the opener gives up, so that the reset overtakes it.
    pair.instance.channel.send(id, Bytes::from(vec![0; 100_000]), End::Stream).unwrap();
    pair.point.stop(id, StreamCode::CANCELLED);
    let stop = pair.point.batch(pair.now).unwrap();
    pair.instance.wire.extend(stop);
    pair.instance.deliver(pair.now, usize::MAX).unwrap();
    let reset = pair.instance.batch(pair.now).unwrap();
    pair.point.wire.extend(reset);
    pair.point.deliver(pair.now, usize::MAX).unwrap();
    assert_eq!(pair.point.open().unwrap().to_wire() & 0x7f_ffff, id.to_wire());
    let open = pair.point.batch(pair.now).unwrap();
    pair.instance.wire.extend(open);
    pair.instance.deliver(pair.now, usize::MAX).unwrap();
    assert_eq!(pair.instance.app.accepted.len(), 2);
}

// R-FRAME-2
#[test]
fn a_trace_cut_at_any_byte_gives_the_same_events() {
    let mut pair = Pair::new(&Config::default());
    let ids: Vec<_> = (0..3).map(|_| pair.instance.open().unwrap()).collect();
    for (number, id) in ids.iter().enumerate() {
        let head = Bytes::from(vec![1; 40 * number + 1]);
        pair.instance.channel.send(*id, head, End::Part).unwrap();
        pair.instance.channel.send(*id, Bytes::from(vec![2; 700]), End::None).unwrap();
    }
    pair.instance.channel.send(ids[0], Bytes::new(), End::Stream).unwrap();
    pair.instance.channel.reset(ids[1], StreamCode::CANCELLED);
    let mut trace = Vec::new();
    while let Some(batch) = pair.instance.batch(pair.now) {
        trace.extend(batch);
    }
    let seen = |cut: usize| {
        let mut end = Endpoint::new(cmgmux_mux::Side::ConnectionPoint, Config::default());
        end.wire = trace.clone();
        end.deliver(pair.now, cut).unwrap();
        end.deliver(pair.now, usize::MAX).unwrap();
        format!("{:?}", end.app.streams)
    };
    let whole = seen(0);
    for cut in 1..trace.len() {
        assert_eq!(seen(cut), whole, "cut at {cut}");
    }
}
