//! When a link counts as dead, and what becomes of what was on it. The clock is the test's.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cmgmux_mux::Claim;
use cmgmux_mux::frame::{FIN, kind};
use cmgmux_net::{Ledger, LinkLoss, ResumeCode};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, pause};

use crate::clock::{as_time_passes, in_no_time, pass};
use crate::pair::World;
use crate::played::{Played, frame};
use crate::relay::Way;
use crate::world::run;

/// What a link with unacknowledged bytes may take: a second until the probe, three for its answer.
const BUSY: Duration = Duration::from_secs(4);
/// What a silent one may take: fifteen seconds until the probe, three for its answer.
const IDLE: Duration = Duration::from_secs(18);
/// What a frame may take from its first byte to its last.
const FRAME: Duration = Duration::from_secs(30);
/// Longer than any of a channel's timers but those of a loss.
const MARGIN: Duration = Duration::from_millis(300);

/// A pair that has exchanged something, and the clock stopped.
async fn used(name: &str) -> World {
    let world = World::new(name).await;
    world.keep();
    world.serve_echoes();
    world.echo(1_000, 1).await;
    // Everything has been acknowledged.
    while world.instance.stats().ring_bytes + world.point.stats().ring_bytes > 0 {
        tokio::task::yield_now().await;
    }
    pause();
    world
}

// R-LIVE-2, R-LIVE-3
#[test]
fn j12_a_link_that_stalls_for_less_than_its_time_is_kept_and_loses_nothing() {
    for way in [Way::Forth, Way::Back] {
        run(async {
            let world = used("short").await;
            for seed in 2..5 {
                world.relay.stall(way);
                let mut echo = pin!(world.echo(300_000, seed));
                tokio::select! {
                    () = &mut echo => panic!("nothing passes"),
                    () = pass(BUSY - MARGIN) => {}
                }
                world.relay.heal();
                in_no_time(echo).await;
                // Nobody has anything to say.
                pass(MARGIN).await;
                world.relay.stall(way);
                pass(IDLE - 2 * MARGIN).await;
                world.relay.heal();
                in_no_time(world.echo(1_000, seed)).await;
            }
            for end in [&world.point, &world.instance] {
                assert_eq!((end.stats().resumes, end.outage()), (0, None), "{way:?}");
            }
            assert!(world.ledger.link_losses().is_empty());
        });
    }
}

// R-LIVE-2, R-LIVE-3
#[test]
fn j12_a_link_that_stalls_for_twenty_seconds_is_replaced_once_it_heals_and_loses_nothing() {
    for way in [Way::Forth, Way::Back] {
        run(async {
            let world = used("long").await;
            world.relay.stall(way);
            let begun = Instant::now();
            let mut echo = pin!(world.echo(300_000, 2));
            let loss = tokio::select! {
                () = &mut echo => panic!("nothing passes"),
                loss = as_time_passes(world.instance.needs_link()) => loss,
            };
            assert_eq!(loss, LinkLoss::Silent);
            let found = begun.elapsed();
            assert!((BUSY..BUSY + MARGIN).contains(&found), "{way:?}: {found:?}");
            tokio::select! {
                () = &mut echo => panic!("nothing passes"),
                () = pass(Duration::from_secs(20) - found) => {}
            }
            assert_eq!(world.instance.stats().resumes, 0);
            world.relay.heal();
            as_time_passes(echo).await;
            in_no_time(world.wait_resumed(1)).await;
            as_time_passes(world.echo(300_000, 3)).await;
            assert!(world.ledger.link_losses()["silent"] >= 1);
            assert!(world.ledger.channel_ends().is_empty());
        });
    }
}

// R-LIVE-4, R-RESUME-4
#[test]
fn a_frame_that_arrives_for_thirty_seconds_costs_its_link_and_a_shorter_one_does_not() {
    run(async {
        let ledger = Arc::new(Ledger::default());
        let mut played = Played::sharing("dribbles", Arc::clone(&ledger)).await;
        let open = frame(kind::OPEN, 0, 1, b"\x01\0\0\0open");
        // Its last byte comes 29 seconds after the first.
        let slow = frame(kind::DATA, 0, 1, &[b's'; 30]);
        let slower = frame(kind::DATA, FIN, 1, &[b't'; 100]);
        played.link.write_all(&open).await.unwrap();
        let mut incoming = played.instance.accept().await.unwrap();
        assert_eq!(incoming.recv.chunk().await.unwrap().unwrap().data, b"open"[..]);
        pause();
        dribble(&mut played.link, &slow).await;
        let whole = in_no_time(incoming.recv.chunk()).await.unwrap().unwrap();
        assert_eq!(whole.data, [b's'; 30][..]);
        assert_eq!(played.instance.outage(), None);

        let begun = Instant::now();
        let loss = tokio::select! {
            loss = played.instance.needs_link() => loss,
            () = dribble(&mut played.link, &slower) => panic!("it was to be lost"),
        };
        assert_eq!(loss, LinkLoss::Dribbling);
        let found = begun.elapsed();
        assert!((FRAME..FRAME + MARGIN).contains(&found), "{found:?}");
        assert_eq!(ledger.link_losses(), [("dribbling".to_owned(), 1)].into());
        in_no_time(async {
            let claim = Claim { epoch: 1, rx_pos: 0, tx_first: 0 };
            let (mut link, answer) = played.ask("point", claim, |_| {}).await;
            let position = (open.len() + slow.len()) as u64;
            assert_eq!((answer.code, answer.rx_pos), (ResumeCode::ACCEPTED, position));
            link.write_all(&slower).await.unwrap();
            assert_eq!(incoming.recv.chunk().await.unwrap().unwrap().data, [b't'; 100][..]);
            assert_eq!(incoming.recv.chunk().await, Ok(None));
        })
        .await;
    });
}

/// Sends the first nine bytes at once and then one a second.
async fn dribble(link: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    let (first, rest) = bytes.split_at(9);
    link.write_all(first).await.unwrap();
    for byte in rest {
        pass(Duration::from_secs(1)).await;
        link.write_all(std::slice::from_ref(byte)).await.unwrap();
    }
}
