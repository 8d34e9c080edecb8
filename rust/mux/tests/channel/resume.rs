//! A channel outlives its links.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cmgmux_mux::frame::{Control, kind};
use cmgmux_mux::{
    Claim, CloseCode, Config, End, Expiry, ProtocolError, ResumeCode, Resumed, StreamCode,
    StreamId, UsageError,
};

use crate::frames::split;
use crate::pair::Pair;

/// Numbered bytes, so that a lost, doubled or moved one shows.
fn numbered(length: usize) -> Bytes {
    (0..length).map(|i| (i / 251 * 7 + i % 251) as u8).collect::<Vec<u8>>().into()
}

fn kinds(bytes: &[u8]) -> Vec<u8> {
    split(bytes).iter().map(|(header, _)| header.kind).collect()
}

/// A request of some pieces and its answer, with everything that both ends have to say encoded.
fn conversation() -> (Pair, Bytes, Bytes) {
    let mut pair = Pair::new(&Config::default());
    let (request, answer) = (numbered(5_000), numbered(30_000));
    let id = pair.instance.open().unwrap();
    pair.instance.channel.send(id, request.slice(..700), End::Part).unwrap();
    pair.settle();
    pair.instance.channel.send(id, request.slice(700..), End::Stream).unwrap();
    pair.point.channel.send(id, answer.slice(..100), End::Part).unwrap();
    pair.point.channel.send(id, answer.slice(100..), End::Stream).unwrap();
    let Pair { point, instance, now } = &mut pair;
    while let Some(batch) = point.batch(*now) {
        instance.wire.extend(batch);
    }
    while let Some(batch) = instance.batch(*now) {
        point.wire.extend(batch);
    }
    (pair, request, answer)
}

fn assert_complete(pair: &mut Pair, request: &Bytes, answer: &Bytes, context: &str) {
    pair.settle_acks();
    let (asked, got) = (&pair.point.app.streams[0], &pair.instance.app.streams[0]);
    assert_eq!((&asked.data[..], asked.ended), (&request[..], 1), "{context}");
    assert_eq!((&got.data[..], got.ended), (&answer[..], 1), "{context}");
    assert_eq!((&asked.parts[..], &got.parts[..]), (&[700, 5_000][..], &[100, 30_000][..]));
    for end in [&pair.point, &pair.instance] {
        let counters = end.channel.counters();
        assert_eq!((counters.live, counters.ring_bytes), (0, 0), "{context}");
    }
}

// R-POS-2, R-RESUME-5, R-RESUME-6, R-RESUME-14
#[test]
fn j1_a_cut_at_any_byte_of_either_direction_loses_and_doubles_nothing() {
    let (pair, ..) = conversation();
    let (to_point, to_instance) = (pair.point.wire.len(), pair.instance.wire.len());
    for cut in 0..=to_point.max(to_instance) {
        let (mut pair, request, answer) = conversation();
        pair.point.deliver(pair.now, cut).unwrap();
        pair.instance.deliver(pair.now, cut).unwrap();
        pair.cut();
        pair.resume();
        assert_complete(&mut pair, &request, &answer, &format!("cut at {cut}"));
    }
}

#[test]
fn whether_there_is_a_link_and_how_much_was_sent_again_can_be_asked() {
    let (mut pair, request, answer) = conversation();
    let mut again = [0; 2];
    for _ in 0..3 {
        assert!(pair.point.channel.is_attached() && pair.instance.channel.is_attached());
        pair.cut();
        assert!(!pair.point.channel.is_attached() && !pair.instance.channel.is_attached());
        pair.resume();
        for (end, again) in [&pair.point, &pair.instance].into_iter().zip(&mut again) {
            let counters = end.channel.counters();
            assert!(counters.ring_bytes > 0);
            *again += counters.ring_bytes;
            assert_eq!(counters.replayed_bytes, *again);
        }
    }
    assert_complete(&mut pair, &request, &answer, "after three cuts");
}

// R-RESUME-14
#[test]
fn what_was_to_be_said_on_the_old_link_alone_is_not_said_on_the_new_one() {
    let (mut pair, request, answer) = conversation();
    let ping = |pair: &mut Pair| {
        let mut frame = BytesMut::new();
        Control::Ping { id: 7 }.encode(StreamId::CHANNEL, &mut frame);
        pair.point.wire = frame.to_vec();
        pair.point.deliver(pair.now, usize::MAX).unwrap();
    };
    pair.cut();
    pair.resume();
    ping(&mut pair);
    pair.cut();
    pair.resume();
    let batch = pair.point.batch(pair.now).unwrap();
    assert!(!kinds(&batch).contains(&kind::PONG));
    pair.instance.wire.extend(batch);
    // An answer that was encoded, and could not be written.
    ping(&mut pair);
    assert!(pair.point.channel.poll_output(pair.now, &mut pair.point.app));
    pair.cut();
    pair.resume();
    let batch = pair.point.batch(pair.now).unwrap();
    assert!(!kinds(&batch).contains(&kind::PONG));
    pair.instance.wire.extend(batch);
    assert_complete(&mut pair, &request, &answer, "after a PING on a link that died");
}

// R-RESUME-4, R-RESUME-5, R-RESUME-7
#[test]
fn what_comes_over_the_old_link_after_the_claim_is_skipped_on_the_new_one() {
    let (pair, ..) = conversation();
    for late in (0..=pair.point.wire.len()).step_by(7) {
        let (mut pair, request, answer) = conversation();
        pair.point.deliver(pair.now, 300).unwrap();
        let claim = pair.point.channel.claim();
        pair.point.deliver(pair.now, late).unwrap();
        // The connection point goes on over the old link as well, acknowledging what came late.
        pair.now = pair.now.after(Duration::from_millis(25));
        while let Some(batch) = pair.point.batch(pair.now) {
            pair.instance.wire.extend(batch);
        }
        pair.instance.deliver(pair.now, usize::MAX).unwrap();
        let resumed = pair.instance.channel.handle_claim(pair.now, &claim).unwrap();
        assert_eq!(resumed.code, ResumeCode::ACCEPTED);
        pair.instance.lose_wire();
        pair.point.lose_wire();
        assert!(pair.point.channel.handle_resumed(pair.now, &resumed).unwrap());
        assert_complete(&mut pair, &request, &answer, &format!("{late} bytes came late"));
    }
}

// R-RESUME-8, R-RESUME-14
#[test]
fn an_acknowledgement_of_what_an_older_link_delivered_shortens_no_replay() {
    let (mut pair, request, answer) = conversation();
    // The instance's frames arrive over the old link after the claim; their acknowledgement comes
    // over the new link before the instance has written a byte there.
    let claim = pair.point.channel.claim();
    pair.point.deliver(pair.now, usize::MAX).unwrap();
    let resumed = pair.instance.channel.handle_claim(pair.now, &claim).unwrap();
    pair.instance.lose_wire();
    pair.point.lose_wire();
    assert!(pair.point.channel.handle_resumed(pair.now, &resumed).unwrap());
    pair.now = pair.now.after(Duration::from_millis(25));
    assert_eq!(pair.point.channel.handle_timeout(pair.now), None);
    let to_instance = pair.point.batch(pair.now).unwrap();
    pair.instance.wire.extend(to_instance);
    pair.instance.deliver(pair.now, usize::MAX).unwrap();
    assert_complete(&mut pair, &request, &answer, "acknowledged early");
}

// R-RESUME-2, R-RESUME-10
#[test]
fn an_answer_that_is_lost_is_asked_for_again_with_the_next_epoch() {
    let (mut pair, request, answer) = conversation();
    pair.cut();
    let first = pair.point.channel.claim();
    let lost = pair.instance.channel.handle_claim(pair.now, &first).unwrap();
    let second = pair.point.channel.claim();
    assert_eq!(second.epoch, first.epoch + 1);
    let resumed = pair.instance.channel.handle_claim(pair.now, &second).unwrap();
    assert_eq!(pair.point.channel.handle_resumed(pair.now, &lost), Ok(false), "it is too late");
    assert_eq!(pair.point.channel.handle_resumed(pair.now, &resumed), Ok(true));
    assert_eq!(pair.point.channel.handle_resumed(pair.now, &resumed), Ok(false), "it was used");
    assert_complete(&mut pair, &request, &answer, "after a lost answer");
}

// R-RESUME-3, R-RESUME-11
#[test]
fn j5_the_same_or_a_lower_epoch_is_refused_and_changes_nothing() {
    let (mut pair, request, answer) = conversation();
    pair.point.deliver(pair.now, 500).unwrap();
    pair.cut();
    let old = pair.point.channel.claim();
    pair.resume();
    let before = pair.instance.channel.counters();
    let refused = pair.instance.channel.handle_claim(pair.now, &old).unwrap();
    assert_eq!(refused, Resumed::refusal(old.epoch, ResumeCode::STALE_EPOCH));
    let again = Claim { epoch: old.epoch + 1, ..old };
    let refused = pair.instance.channel.handle_claim(pair.now, &again).unwrap();
    assert_eq!(refused.code, ResumeCode::STALE_EPOCH);
    assert_eq!(pair.instance.channel.counters(), before);
    assert_complete(&mut pair, &request, &answer, "after stale claims");
}

// R-RESUME-9
#[test]
fn j6_a_resume_from_where_bytes_are_missing_or_were_never_sent_is_refused() {
    let (mut pair, ..) = conversation();
    pair.cut();
    let claim = pair.point.channel.claim();
    let before = pair.instance.channel.counters();
    for wrong in [Claim { rx_pos: u64::MAX, ..claim }, Claim { tx_first: u64::MAX, ..claim }] {
        let error = pair.instance.channel.handle_claim(pair.now, &wrong).unwrap_err();
        assert_eq!(error.code(), CloseCode::RESUME_RANGE, "{error}");
        assert_eq!(pair.instance.channel.counters(), before);
    }
    let resumed = pair.instance.channel.handle_claim(pair.now, &claim).unwrap();
    let before = pair.point.channel.counters();
    for wrong in [
        Resumed { rx_pos: u64::MAX, ..resumed },
        Resumed { tx_start: resumed.tx_start + 1, ..resumed },
    ] {
        let error = pair.point.channel.handle_resumed(pair.now, &wrong).unwrap_err();
        assert!(matches!(error, ProtocolError::ResumeRange { .. }), "{error}");
        assert_eq!(pair.point.channel.counters(), before);
    }
}

// R-RESUME-9
#[test]
fn j6_an_answer_that_asks_for_what_was_acknowledged_is_refused() {
    let (mut pair, ..) = conversation();
    pair.settle_acks();
    pair.cut();
    let claim = pair.point.channel.claim();
    let resumed = pair.instance.channel.handle_claim(pair.now, &claim).unwrap();
    let before = pair.point.channel.counters();
    for wrong in [
        Resumed { rx_pos: resumed.rx_pos - 1, ..resumed },
        Resumed { tx_start: claim.rx_pos - 1, ..resumed },
    ] {
        let error = pair.point.channel.handle_resumed(pair.now, &wrong).unwrap_err();
        assert_eq!(error.code(), CloseCode::RESUME_RANGE, "{error}");
        assert_eq!(pair.point.channel.counters(), before);
    }
}

// R-RESUME-7
#[test]
fn j6_a_replay_that_ends_inside_a_frame_is_refused() {
    let (mut pair, ..) = conversation();
    let claim = pair.point.channel.claim();
    pair.point.deliver(pair.now, usize::MAX).unwrap();
    let mut resumed = pair.instance.channel.handle_claim(pair.now, &claim).unwrap();
    pair.instance.lose_wire();
    resumed.tx_start += 1;
    assert!(pair.point.channel.handle_resumed(pair.now, &resumed).unwrap());
    while let Some(batch) = pair.instance.batch(pair.now) {
        pair.point.wire.extend(batch);
    }
    let error = pair.point.deliver(pair.now, usize::MAX).unwrap_err();
    assert!(matches!(error, ProtocolError::ReplayBoundary { .. }), "{error}");
}

// R-RESUME-12
#[test]
fn without_a_link_nothing_is_encoded_and_no_stream_is_opened() {
    let mut pair = Pair::new(&Config::default());
    let id = pair.instance.open().unwrap();
    pair.instance.channel.send(id, Bytes::from_static(b"first"), End::None).unwrap();
    pair.settle();
    pair.cut();
    assert_eq!(pair.instance.open(), Err(UsageError::Detached));
    while pair.instance.channel.has_room(id).unwrap() {
        pair.instance.channel.send(id, Bytes::from(vec![0; 10_000]), End::None).unwrap();
    }
    assert_eq!(pair.instance.batch(pair.now), None);
    let queued = pair.instance.channel.counters().queued_bytes;
    assert!((64 * 1024..80 * 1024).contains(&queued), "a writer waits: {queued}");
    pair.resume();
    pair.instance.open().unwrap();
}

// R-RESUME-13
#[test]
fn j8_the_window_for_a_new_link_ends_the_channel_and_not_before() {
    let mut pair = Pair::new(&Config::default());
    pair.cut();
    let end = pair.instance.channel.next_deadline();
    assert_eq!(end, pair.now.after(Duration::from_secs(60)));
    pair.now = end;
    let before = cmgmux_mux::Timestamp::from_micros(end.as_micros() - 1);
    assert_eq!(pair.instance.channel.handle_timeout(before), None);
    assert_eq!(pair.point.channel.handle_timeout(end), Some(Expiry::Channel));
    let mut pair = Pair::new(&Config::default());
    pair.cut();
    pair.now = before;
    pair.resume();
    assert_eq!(pair.instance.channel.handle_timeout(pair.now), None);
    assert!(pair.instance.channel.next_deadline() > pair.now);
}

// R-RESUME-13
#[test]
fn a_second_loss_of_the_link_does_not_prolong_the_window() {
    let mut pair = Pair::new(&Config::default());
    pair.cut();
    let end = pair.point.channel.next_deadline();
    pair.now = pair.now.after(Duration::from_secs(30));
    pair.cut();
    assert_eq!(pair.point.channel.next_deadline(), end);
}

// R-RESUME-12
#[test]
fn j16_ends_and_resets_without_a_link_arrive_in_order_after_the_resume() {
    let mut pair = Pair::new(&Config::default());
    let ids: Vec<_> = (0..4).map(|_| pair.instance.open().unwrap()).collect();
    for id in &ids {
        pair.instance.channel.send(*id, Bytes::from_static(b"x"), End::None).unwrap();
    }
    pair.settle();
    pair.cut();
    pair.instance.channel.send(ids[0], Bytes::from_static(b"end"), End::Stream).unwrap();
    pair.instance.channel.reset(ids[1], StreamCode(0x123));
    pair.point.stop(ids[2], StreamCode(0x124));
    pair.point.channel.go_away(CloseCode::SHUTDOWN, Duration::from_secs(1));
    pair.resume();
    pair.settle();
    let seen = &pair.point.app.streams;
    assert_eq!((&seen[0].data[..], seen[0].ended), (&b"xend"[..], 1));
    assert_eq!(seen[1].reset, Some(StreamCode(0x123)));
    assert_eq!(pair.instance.app.streams[2].stopped, Some(StreamCode(0x124)));
    assert_eq!(pair.instance.app.draining, Some(CloseCode::SHUTDOWN));
    pair.instance.channel.send(ids[3], Bytes::from_static(b"y"), End::None).unwrap();
    pair.settle();
    assert_eq!(pair.point.app.streams[3].data, b"xy");
}

// R-POS-3, R-RESUME-5
#[test]
fn a_replay_has_the_batches_of_the_first_time_and_nothing_new_between_them() {
    let mut pair = Pair::new(&Config::default());
    let id = pair.instance.open().unwrap();
    pair.instance.channel.send(id, numbered(30_000), End::None).unwrap();
    let mut first = Vec::new();
    while let Some(batch) = pair.instance.batch(pair.now) {
        first.push(batch);
    }
    assert!(first.len() > 1);
    pair.cut();
    let small = pair.instance.channel.send(id, Bytes::from_static(b"new"), End::Part);
    small.unwrap();
    pair.resume();
    for batch in first {
        assert_eq!(pair.instance.batch(pair.now), Some(batch));
    }
    let next = pair.instance.batch(pair.now).unwrap();
    assert_eq!(kinds(&next), [kind::DATA]);
}

#[test]
fn an_idle_channel_moves_without_a_byte_of_replay() {
    let (mut pair, request, answer) = conversation();
    assert_complete(&mut pair, &request, &answer, "before");
    pair.cut();
    pair.resume();
    assert_eq!(pair.point.channel.counters().replayed_bytes, 0);
    assert_eq!(pair.point.batch(pair.now), None);
    assert_eq!(pair.instance.batch(pair.now), None);
}

// R-CLOSE-1
#[test]
fn a_close_in_the_middle_of_a_replay_stands_alone_and_nothing_follows_it() {
    let mut pair = Pair::new(&Config::default());
    let id = pair.instance.open().unwrap();
    pair.instance.channel.send(id, numbered(50_000), End::None).unwrap();
    while pair.instance.batch(pair.now).is_some() {}
    pair.cut();
    pair.resume();
    assert_eq!(kinds(&pair.instance.batch(pair.now).unwrap()), [kind::OPEN]);
    pair.instance.channel.close(CloseCode::SHUTDOWN, "enough");
    assert_eq!(kinds(&pair.instance.batch(pair.now).unwrap()), [kind::CLOSE]);
    assert_eq!(pair.instance.batch(pair.now), None);
}
