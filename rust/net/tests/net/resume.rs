//! A channel outlives its links, over real TLS.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use cmgmux_mux::{Claim, Resume, Resumed};
use cmgmux_net::{
    Arrival, CloseCode, End, EndReason, HandshakeError, LinkLoss, OpenError, ResumeCode,
    StreamError, StreamKind,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;

use crate::pair::{World, resume};
use crate::played::{accept_tls, read_frame};
use crate::relay::Cut;
use crate::world::{DEADLINE, Lapse, Pki, arrival, both_ends, listener, read_all, run, run_within};

/// Links to kill: `KILLS`, or a few.
fn kills() -> usize {
    std::env::var("KILLS").map_or(20, |kills| kills.parse().expect("KILLS is a number"))
}

// R-RESUME-2, R-RESUME-5, R-RESUME-6
#[test]
fn links_killed_in_every_way_under_load_lose_no_byte() {
    let kills = kills();
    run_within(DEADLINE + Duration::from_millis(500) * u32::try_from(kills).unwrap(), async {
        let world = World::new("killed").await;
        world.keep();
        world.serve_echoes();
        let (is_over, echoed) = (Cell::new(false), Cell::new(0));
        let killing = async {
            for kill in 0..kills {
                let cut = match kill % 50 {
                    49 => Cut::Freeze,
                    odd if odd % 2 == 1 => Cut::Rst,
                    _ => Cut::Fin,
                };
                // Some fall into the handshake of the link before, most into the middle of a frame.
                let unit = [3, 30, 60_000][kill % 3];
                world.relay.cut_after(kill * 7_919 % 1_009 * unit, cut);
                while !world.relay.is_cut() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            is_over.set(true);
        };
        let load = async |seed: u8, bytes: usize| {
            while !is_over.get() {
                world.echo(bytes, seed).await;
                echoed.set(echoed.get() + 2 * bytes);
            }
        };
        tokio::join!(killing, load(1, 2_000_000), load(2, 500_000), load(3, 300));
        world.echo(100_000, 4).await;
        let (resumes, megabytes) = (world.point.stats().resumes, echoed.get() / 1_000_000);
        eprintln!("{kills} links killed, {resumes} resumes, {megabytes} MB compared");
        assert!(resumes > kills as u64 / 2, "{:?}", world.point.stats());
        assert!(kills < 300 || megabytes >= 2_000, "too little was under way");
    });
}

#[test]
fn j12_a_link_that_falls_silent_is_found_and_replaced() {
    run(async {
        let world = World::new("silent").await;
        world.keep();
        world.serve_echoes();
        world.echo(1_000, 1).await;
        world.relay.cut(Cut::Freeze);
        world.echo(1_000, 2).await;
        assert_eq!(world.point.stats().resumes, 1);
    });
}

#[test]
fn j15_bytes_changed_or_missing_below_tls_end_the_link_and_reach_nobody() {
    run(async {
        let world = World::new("damaged").await;
        world.keep();
        world.serve_echoes();
        world.echo(1_000, 0).await;
        let mut damaged = 0;
        for cut in [Cut::Flip, Cut::Drop] {
            // In the header of a record, in its body, and deep in the flow.
            for offset in [0, 3, 7, 1_000, 40_000, 333_333] {
                world.relay.cut_after(offset, cut);
                while !world.relay.is_cut() {
                    world.echo(100_000, 7).await;
                }
                damaged += 1;
                world.echo(1_000, 8).await;
            }
        }
        let resumes = world.point.stats().resumes;
        assert!(resumes >= damaged, "{resumes} resumes, {damaged} links damaged");
    });
}

#[test]
fn j10_a_certificate_that_has_expired_or_lost_its_ca_since_does_not_resume_its_channel() {
    run(async {
        let world = World::new("expired").await;
        world.serve_echoes();
        world.echo(1_000, 1).await;
        for (number, lapse) in [Lapse::Expired, Lapse::Distrusted].into_iter().enumerate() {
            world.relay.cut(Cut::Fin);
            world.point.needs_link().await;
            world.pki.lapse(Some(lapse));
            let refused = world.resume().await;
            assert!(matches!(refused, Err(HandshakeError::Tls(_))), "{lapse:?}: {refused:?}");
            assert!(world.point.outage().is_some() && world.instance.outage().is_some());
            world.pki.lapse(None);
            world.resume().await.unwrap();
            world.wait_resumed(number as u64 + 1).await;
            world.echo(1_000, 2).await;
        }
    });
}

// R-RESUME-4, R-RESUME-7
#[test]
fn a_channel_moves_under_load_while_its_link_lives() {
    run(async {
        let world = World::new("moves").await;
        world.serve_echoes();
        let moving = async {
            for round in 1..=20 {
                world.resume().await.unwrap();
                world.wait_resumed(round).await;
            }
        };
        tokio::join!(moving, world.echo(20_000_000, 1), world.echo(5_000_000, 2));
        assert_eq!(world.instance.stats().resumes, 20);
    });
}

// R-RESUME-3
#[test]
fn of_two_links_that_come_at_once_the_later_attempt_is_taken_in_whatever_order() {
    run(async {
        let pki = Rc::new(Pki::new("at-once"));
        let (listener, address) = listener();
        let (point, instance) = both_ends(&pki, &listener).await;
        let attempt = || {
            let (pki, point) = (Rc::clone(&pki), point.clone());
            spawn_local(async move { resume(&pki, &point, address, "point").await })
        };
        for is_in_order in [true, false] {
            let mut asked = Vec::new();
            let mut offers = Vec::new();
            for _ in 0..2 {
                asked.push(attempt());
                // The first is received in full, and so has the lower epoch.
                let Ok(Arrival::Resume(offer)) = arrival(&pki, &listener).await else { panic!() };
                assert!(instance.is_offered(&offer));
                offers.push(offer);
            }
            if !is_in_order {
                offers.reverse();
            }
            // The driver sees neither before it has both.
            for offer in offers {
                instance.resume(offer).unwrap();
            }
            let [earlier, later] = asked.try_into().unwrap();
            later.await.unwrap().unwrap();
            earlier.await.unwrap().unwrap_err();
        }
        assert_eq!(instance.stats().resumes, 2);
    });
}

/// Has the connection point ask to go on, at an address where the test gives the answer.
async fn asked(world: &World, answer: impl Fn(Claim) -> Resumed) -> Result<(), HandshakeError> {
    let (listener, address) = listener();
    let answering = async {
        let mut link = accept_tls(&world.pki, &listener).await;
        let (_, body) = read_frame(&mut link).await.unwrap();
        let answer = answer(Resume::decode(&body).unwrap().claim);
        link.write_all(&answer.encode()).await.unwrap();
        // It ends, with or without a word.
        let _ = link.read_to_end(&mut Vec::new()).await;
    };
    let asking = resume(&world.pki, &world.point, address, "point");
    tokio::join!(asking, answering).0
}

// R-RESUME-11, R-RESUME-17
#[test]
fn j9_after_any_refusal_but_unknown_channel_the_connection_point_may_ask_again() {
    run(async {
        let world = World::new("refused").await;
        world.serve_echoes();
        world.echo(1_000, 1).await;
        world.relay.cut(Cut::Fin);
        world.point.needs_link().await;
        let codes = [ResumeCode::WRONG_INSTANCE, ResumeCode::STALE_EPOCH, ResumeCode::BUSY];
        for code in codes.into_iter().chain([ResumeCode(99)]) {
            let error = asked(&world, |claim| Resumed::refusal(claim.epoch, code)).await;
            assert!(matches!(error, Err(HandshakeError::NotResumed(said)) if said == code));
            assert!(world.point.outage().is_some(), "{code}");
        }
        world.resume().await.unwrap();
        world.echo(1_000, 2).await;
    });
}

// R-RESUME-10
#[test]
fn j13_an_answer_to_another_attempt_drops_its_link_and_the_channel_goes_on() {
    run(async {
        let world = World::new("another-attempt").await;
        world.serve_echoes();
        let answer = |Claim { epoch, rx_pos, tx_first }: Claim| {
            let (code, epoch) = (ResumeCode::ACCEPTED, epoch + 1);
            Resumed { code, epoch, rx_pos: tx_first, tx_start: rx_pos }
        };
        let error = asked(&world, answer).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Protocol(_)), "{error}");
        world.echo(100_000, 1).await;
        assert_eq!((world.point.stats().resumes, world.point.outage()), (0, None));
    });
}

// R-RESUME-12
#[test]
fn streams_wait_for_a_new_link_and_none_is_opened_without() {
    run(async {
        let world = World::new("waits").await;
        let (mut send, mut recv) = world.instance.try_open(StreamKind::Exchange).unwrap();
        send.send(Bytes::from_static(b"held"), End::Part).unwrap();
        let mut held = world.point.accept().await.unwrap();
        held.recv.chunk().await.unwrap();
        world.relay.cut(Cut::Fin);
        assert_eq!(world.point.needs_link().await, LinkLoss::Closed);
        world.instance.needs_link().await;
        assert!(!world.instance.is_usable());
        let refused = world.instance.try_open(StreamKind::Exchange).unwrap_err();
        assert_eq!(refused, OpenError::Detached);
        held.send.send(Bytes::from_static(b"notified"), End::Stream).unwrap();
        let possible = world.instance.opens_possible();
        world.resume().await.unwrap();
        possible.await;
        assert_eq!(read_all(&mut recv).await.unwrap(), b"notified");
        world.instance.try_open(StreamKind::Exchange).unwrap();
    });
}

// R-RESUME-17
#[test]
fn j9_an_instance_that_lacks_the_channel_says_so_and_it_ends_at_once() {
    run(async {
        let world = World::new("unknown").await;
        let other = World::new("other").await;
        let (_send, mut recv) = world.point.try_open(StreamKind::Control).unwrap();
        world.relay.cut(Cut::Fin);
        world.point.needs_link().await;
        let error = resume(&other.pki, &world.point, other.relay.address, "point").await;
        let code = ResumeCode::UNKNOWN_CHANNEL;
        assert!(matches!(error, Err(HandshakeError::NotResumed(refused)) if refused == code));
        let reason = EndReason::NotResumed(code);
        assert_eq!(world.point.ended().await, reason);
        assert_eq!(recv.chunk().await, Err(StreamError::ChannelLost(reason)));
        other.serve_echoes();
        other.echo(1_000, 1).await;
    });
}

#[test]
fn a_channel_that_ends_without_a_link_ends_at_once() {
    run(async {
        let world = World::new("closed").await;
        world.relay.cut(Cut::Rst);
        world.instance.needs_link().await;
        world.instance.close(CloseCode::SHUTDOWN, "planned by the test");
        assert!(world.instance.ended().await.is_planned());
        let refused = world.resume().await;
        assert!(matches!(refused, Err(HandshakeError::NotResumed(_))), "{refused:?}");
    });
}
