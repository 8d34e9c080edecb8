//! Rules of `docs/protocol.md` about links, with one end that the test plays byte by byte.

use std::sync::Arc;

use bytes::Bytes;
use cmgmux_mux::frame::{Control, EOM, FIN, kind};
use cmgmux_mux::{Claim, Resume, Resumed};
use cmgmux_net::{
    CloseCode, End, EndReason, Incoming, Ledger, Limits, ResumeCode, StreamCode, StreamError,
    StreamKind,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::played::{
    Played, STREAM, close, frame, last_word, play_instance, play_instance_allowed, proof,
    read_frame,
};
use crate::world::run;

// R-HELLO-7
#[test]
fn what_comes_right_behind_hello_ok_is_applied() {
    run(async {
        let open = frame(kind::OPEN, FIN | EOM, STREAM, b"\x01\0\0\0early");
        let (point, _link) = play_instance("early", &open).await;
        let mut incoming = point.accept().await.unwrap();
        assert_eq!(incoming.recv.chunk().await.unwrap().unwrap().data, &b"early"[..]);
        assert_eq!(incoming.recv.chunk().await, Ok(None));
    });
}

// R-FRAME-8, R-CLOSE-1
#[test]
fn a_broken_rule_is_answered_with_its_code_and_nothing_behind_it() {
    run(async {
        for (number, (bytes, code)) in [
            (frame(0x1f, 0, 0, b""), CloseCode::UNKNOWN_FRAME),
            (frame(kind::PING, 0, 0, b"short"), CloseCode::MALFORMED),
            (frame(kind::DATA, 0, STREAM, b"nowhere"), CloseCode::STREAM_STATE),
            (frame(kind::HELLO, 0, 0, b""), CloseCode::UNKNOWN_FRAME),
        ]
        .into_iter()
        .enumerate()
        {
            let (point, mut link) = play_instance(&format!("broken-{number}"), &bytes).await;
            assert_eq!(last_word(&mut link).await, code);
            let EndReason::Protocol(error) = point.ended().await else { panic!() };
            assert_eq!(error.code(), code);
        }
    });
}

// R-CLOSE-1, R-CLOSE-2
#[test]
fn close_is_the_last_frame_and_ends_the_channel() {
    run(async {
        let (point, mut link) = play_instance("closing", &[]).await;
        let (mut send, mut recv) = point.try_open(StreamKind::Exchange).unwrap();
        send.send(b"asked".as_slice().into(), End::None).unwrap();
        let (header, _) = read_frame(&mut link).await.unwrap();
        assert_eq!(header.kind, kind::OPEN);
        point.close(CloseCode::INTERNAL, "by the test");
        assert_eq!(last_word(&mut link).await, CloseCode::INTERNAL);
        recv.chunk().await.unwrap_err();

        let (point, mut link) = play_instance("closed", &[]).await;
        let code = CloseCode::INTERNAL;
        link.write_all(&close(CloseCode(14), "ours")).await.unwrap();
        let expected = EndReason::ClosedByPeer { code, text: "ours".to_owned() };
        assert_eq!(point.ended().await, expected);
    });
}

#[test]
fn i7_a_peer_that_reads_nothing_is_sent_little_and_the_rest_stays_queued() {
    const STREAMS: u32 = 200;
    run(async {
        let opens = (0..STREAMS).map(|number| frame(kind::OPEN, 0, STREAM + number, &[1, 0, 0, 0]));
        let (point, _link) = play_instance("unread", &opens.flatten().collect::<Vec<_>>()).await;
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let mut incoming = point.accept().await.unwrap();
            incoming.send.send(Bytes::from(vec![7; 32 * 1024]), End::None).unwrap();
            streams.push(incoming);
        }
        assert_eq!(point.needs_link().await.code(), "silent");
        let stats = point.stats();
        // At most the least that is in flight on any link, and what small messages have beyond it.
        assert!(stats.ring_bytes <= (256 + 64) * 1024, "{stats:?}");
        let kept = stats.ring_bytes + stats.queued_bytes;
        assert!(kept >= u64::from(STREAMS) * 32 * 1024, "{stats:?}");
    });
}

/// The tickets that the other end has given, once it has answered everything said before.
async fn tickets(link: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<u64> {
    let mut tickets = None;
    // What is due goes out behind the first answer.
    for _ in 0..2 {
        link.write_all(&frame(kind::PING, 0, 0, &[0; 8])).await.unwrap();
        loop {
            let (header, body) = read_frame(link).await.unwrap();
            match Control::decode(&header, &body) {
                Ok(Control::Pong { .. }) => break,
                Ok(Control::Tickets { max_opens }) => tickets = Some(max_opens),
                _ => {}
            }
        }
    }
    tickets
}

// R-TICKET-2
#[test]
fn i8_a_ticket_comes_back_with_the_end_of_a_handler_and_not_of_its_stream() {
    const ALLOWED: u32 = 4;
    // An id that has been used is used again.
    const AGAIN: u32 = STREAM | 1 << 23;
    run(async {
        let limits = Limits { max_streams: ALLOWED, ..Limits::default() };
        let (point, mut link) = play_instance_allowed("tickets", &[], limits).await;
        let open = |stream: u32| {
            let reset = frame(kind::RESET, 0, stream, &[&[1][..], &[0; 11]].concat());
            [frame(kind::OPEN, 0, stream, b"\x01\0\0\0"), reset].concat()
        };
        let mut handlers = Vec::new();
        for number in 0..ALLOWED {
            link.write_all(&open(STREAM + number)).await.unwrap();
            let Incoming { send, recv, .. } = point.accept().await.unwrap();
            send.reset(StreamCode::CANCELLED);
            handlers.push(recv);
        }
        assert_eq!(tickets(&mut link).await, None);
        assert_eq!(point.stats().streams, 0, "all streams are over");
        handlers.pop();
        assert_eq!(tickets(&mut link).await, Some(u64::from(ALLOWED) + 1));
        link.write_all(&open(AGAIN)).await.unwrap();
        handlers.push(point.accept().await.unwrap().recv);
        link.write_all(&open(AGAIN + 1)).await.unwrap();
        assert_eq!(last_word(&mut link).await, CloseCode::OPEN_LIMIT);
    });
}

const FIRST: Claim = Claim { epoch: 1, rx_pos: 0, tx_first: 0 };

// R-RESUME-11, R-RESUME-15
#[test]
fn j4_the_right_proof_under_the_certificate_of_another_connection_point_is_refused() {
    run(async {
        let mut played = Played::new("another").await;
        // One of the same site, and one of another with the same name.
        for who in ["colleague", "namesake"] {
            let (mut link, answer) = played.ask(who, FIRST, |_| {}).await;
            assert_eq!(answer, Resumed::refusal(FIRST.epoch, ResumeCode::UNKNOWN_CHANNEL));
            assert!(read_frame(&mut link).await.is_none());
        }
        played.is_undisturbed().await;
        let (_, answer) = played.ask("point", FIRST, |_| {}).await;
        assert_eq!(answer.code, ResumeCode::ACCEPTED, "the same under its own");
    });
}

// R-RESUME-11, R-RESUME-15
#[test]
fn j3_a_resume_with_anything_changed_is_refused_and_disturbs_nothing() {
    run(async {
        let mut played = Played::new("changed").await;
        let changes: [fn(&mut Resume); 6] = [
            |resume| resume.channel_id[15] ^= 1,
            |resume| resume.claim.epoch += 1,
            |resume| resume.claim.rx_pos += 1,
            |resume| resume.claim.tx_first += 1,
            |resume| resume.nonce[0] ^= 0x80,
            |resume| resume.proof[31] ^= 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let (mut link, answer) = played.ask("point", FIRST, change).await;
            let expected = Resumed::refusal(answer.epoch, ResumeCode::UNKNOWN_CHANNEL);
            assert_eq!(answer, expected, "change {number}");
            assert!(read_frame(&mut link).await.is_none());
        }
        let (_, of_another_link) = played.claim("point", FIRST).await;
        let (_, answer) = played.ask("point", FIRST, |resume| *resume = of_another_link).await;
        assert_eq!(answer.code, ResumeCode::UNKNOWN_CHANNEL, "a proof of another link");
        let position = played.is_undisturbed().await;
        let (_link, answer) = played.ask("point", FIRST, |_| {}).await;
        assert_eq!((answer.code, answer.epoch), (ResumeCode::ACCEPTED, 1));
        assert_eq!(answer.rx_pos, position);
    });
}

// R-RESUME-3, R-RESUME-4
#[test]
fn j5_an_accepted_claim_fences_the_old_link_between_two_frames() {
    run(async {
        let mut played = Played::new("fenced").await;
        let open = frame(kind::OPEN, 0, 1, b"\x01\0\0\0whole");
        let late = frame(kind::DATA, FIN, 1, b"late");
        played.link.write_all(&[&open[..], &late[..10]].concat()).await.unwrap();
        let mut incoming = played.instance.accept().await.unwrap();
        assert_eq!(incoming.recv.chunk().await.unwrap().unwrap().data, &b"whole"[..]);
        let (mut link, answer) = played.ask("point", FIRST, |_| {}).await;
        assert_eq!((answer.code, answer.rx_pos), (ResumeCode::ACCEPTED, open.len() as u64));
        // The old link may be closed before it takes this.
        let _ = played.link.write_all(&late[10..]).await;
        assert!(
            read_frame(&mut played.link).await.is_none_or(|(header, _)| header.kind == kind::ACK)
        );
        let (_, stale) = played.ask("point", FIRST, |_| {}).await;
        assert_eq!(stale, Resumed::refusal(1, ResumeCode::STALE_EPOCH));
        link.write_all(&frame(kind::DATA, FIN, 1, b"again")).await.unwrap();
        assert_eq!(incoming.recv.chunk().await.unwrap().unwrap().data, &b"again"[..]);
        assert_eq!(incoming.recv.chunk().await, Ok(None));
    });
}

// R-RESUME-18
#[test]
fn j7_channels_without_a_link_share_an_account_and_the_oldest_gives_way() {
    run(async {
        let ledger = Arc::new(Ledger::new(70_000));
        let mut cut = Vec::new();
        for number in 0..3 {
            let mut played = Played::sharing(&format!("crowd-{number}"), Arc::clone(&ledger)).await;
            let (mut send, recv) = played.instance.try_open(StreamKind::Exchange).unwrap();
            send.send(vec![7; 30_000].into(), End::None).unwrap();
            // It is sent, and not acknowledged.
            assert_eq!(read_frame(&mut played.link).await.unwrap().0.kind, kind::OPEN);
            played.link.shutdown().await.unwrap();
            assert_eq!(played.instance.needs_link().await.code(), "closed");
            cut.push((played, recv, send));
        }
        let (first, recv, _) = &mut cut[0];
        let reason = first.instance.ended().await;
        assert_eq!((reason.code(), ledger.channel_ends()["crowded"]), ("crowded".to_owned(), 1));
        assert_eq!(recv.chunk().await, Err(StreamError::ChannelLost(reason)));
        let kept = ledger.detached_bytes();
        assert!((60_000..70_000).contains(&kept), "{kept}");
        let (_, answer) = first.ask("point", FIRST, |_| {}).await;
        assert_eq!(answer.code, ResumeCode::UNKNOWN_CHANNEL);
        let mut links = Vec::new();
        for (played, ..) in &cut[1..] {
            let (link, answer) = played.ask("point", FIRST, |_| {}).await;
            assert_eq!(answer.code, ResumeCode::ACCEPTED);
            links.push(link);
        }
        assert_eq!((ledger.detached_bytes(), ledger.link_losses()["closed"]), (0, 3));
    });
}

// R-RESUME-9
#[test]
fn j6_a_claim_of_what_never_was_ends_the_channel_in_words() {
    run(async {
        let played = Played::new("never").await;
        let (mut link, mut resume) =
            played.claim("point", Claim { epoch: 1, rx_pos: 1, tx_first: 0 }).await;
        resume.proof = proof(&resume, &played.agreed.secret, &link);
        link.write_all(&resume.encode()).await.unwrap();
        assert_eq!(last_word(&mut link).await, CloseCode::RESUME_RANGE);
        assert!(matches!(played.instance.ended().await, EndReason::Protocol(_)));
    });
}
