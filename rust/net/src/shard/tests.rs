use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};

use super::*;

const SOON: Duration = Duration::from_secs(20);

/// Says on its channel that it was dropped.
struct Dropped(Sender<&'static str>, &'static str);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

/// Reports the shard's index and its thread's name.
async fn report(shard: Shard, reports: Sender<(usize, String)>) -> Result<(), String> {
    let name = thread::current().name().unwrap_or_default().to_owned();
    reports.send((shard.index(), name)).map_err(|error| error.to_string())
}

fn stopped(shards: &Shards) -> Result<(), ServiceError> {
    shards.request_stop(SOON);
    shards.wait()
}

#[test]
fn tasks_run_on_the_thread_of_their_shard() {
    let shards = Shards::start_with_control("test", 2).unwrap();
    let (reports, seen) = channel();
    for index in 0..2 {
        let reports = reports.clone();
        shards.spawn_on(index, move |shard| report(shard, reports));
        assert_eq!(seen.recv_timeout(SOON).unwrap(), (index, format!("test-{index}")));
    }
    shards.spawn_control(move |shard| report(shard, reports));
    assert_eq!(seen.recv_timeout(SOON).unwrap(), (2, "control".to_owned()));
    stopped(&shards).unwrap();
}

#[test]
fn tasks_of_a_shard_may_share_what_is_not_send() {
    let shards = Shards::start("test", 1).unwrap();
    let (results, seen) = channel();
    shards.spawn_on(0, |shard| async move {
        let shared = Rc::new(RefCell::new(1));
        let (done, finished) = tokio::sync::oneshot::channel();
        let theirs = Rc::clone(&shared);
        shard.spawn(async move {
            *theirs.borrow_mut() += 1;
            let _ = done.send(());
        });
        finished.await.map_err(|error| error.to_string())?;
        let value = *shared.borrow();
        results.send(value).map_err(|error| error.to_string())
    });
    assert_eq!(seen.recv_timeout(SOON).unwrap(), 2);
    stopped(&shards).unwrap();
}

#[test]
fn a_handle_brings_a_task_and_what_it_carries_to_another_shard() {
    let shards = Shards::start("test", 2).unwrap();
    let (reports, seen) = channel();
    let second = shards.handle(1);
    shards.spawn_on(0, |_| async move {
        let spawned = second.try_spawn(|shard| async move {
            let _ = report(shard, reports).await;
        });
        spawned.map_err(|error| error.to_string())
    });
    assert_eq!(seen.recv_timeout(SOON).unwrap(), (1, "test-1".to_owned()));
    stopped(&shards).unwrap();
}

#[test]
fn a_root_task_that_fails_stops_all_shards_and_is_named() {
    let shards = Shards::start("test", 2).unwrap();
    shards.spawn_on(0, |shard| async move {
        shard.stop().requested().await;
        Ok(())
    });
    shards.spawn_on(1, |_| async { Err("lost its listener".to_owned()) });
    let error = shards.wait().expect_err("shard 1 failed");
    assert_eq!(error.to_string(), "shard 1 ended by itself: lost its listener");
    assert_eq!(shards.wait(), Err(error), "asked again, it says the same");
}

#[test]
fn a_root_task_that_panics_stops_all_shards_and_is_named() {
    let shards = Shards::start_with_control("test", 1).unwrap();
    shards.spawn_on(0, |shard| async move {
        shard.stop().requested().await;
        Ok(())
    });
    shards.spawn_control(|shard| async move { panic!("index is {}", shard.index()) });
    let error = shards.wait().expect_err("the control thread panicked");
    assert_eq!(error.to_string(), "control thread ended by itself: panicked: index is 1");
}

#[test]
fn a_closure_that_panics_before_its_future_exists_is_a_failure_too() {
    fn broken(_: Shard) -> std::future::Ready<Result<(), String>> {
        panic!("no future")
    }
    let shards = Shards::start("test", 1).unwrap();
    shards.spawn_on(0, broken);
    let error = shards.wait().expect_err("it panicked");
    assert_eq!(error.why, "panicked: no future");
}

#[test]
fn a_connection_that_panics_ends_alone_but_is_reported_at_the_end() {
    let shards = Shards::start("test", 1).unwrap();
    let (results, seen) = channel();
    let (dropped, drops) = channel();
    shards.spawn_on(0, move |shard| async move {
        let held = Dropped(dropped, "connection");
        shard.spawn(async move {
            let _held = held;
            panic!("bad peer");
        });
        shard.stop().requested().await;
        results.send("still here").map_err(|error| error.to_string())
    });
    assert_eq!(drops.recv_timeout(SOON).unwrap(), "connection");
    let error = stopped(&shards).expect_err("the panic is not swallowed");
    assert_eq!(seen.recv_timeout(SOON).unwrap(), "still here");
    assert_eq!(error.to_string(), "a task of shard 0 ended by itself: panicked: bad peer");
    assert_eq!((shards.panics(), shards.tasks()), (1, 0));
}

#[test]
fn a_panic_while_a_task_is_dropped_is_seen() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    let shards = Shards::start("test", 1).unwrap();
    let (started, seen) = channel();
    shards.spawn_on(0, move |shard| async move {
        let bomb = Bomb;
        shard.spawn(async move {
            let _bomb = bomb;
            let _ = started.send(());
            pending::<()>().await;
        });
        Ok(())
    });
    seen.recv_timeout(SOON).unwrap();
    shards.request_stop(Duration::ZERO);
    let error = shards.wait().expect_err("the panic is not swallowed");
    assert_eq!(error.what, "a task of shard 0");
}

#[test]
fn stopping_waits_for_tasks_that_finish_within_the_grace() {
    let shards = Shards::start("test", 1).unwrap();
    let (results, seen) = channel();
    shards.spawn_on(0, |shard| async move {
        let connection = shard.clone();
        shard.spawn(async move {
            connection.stop().requested().await;
            tokio::task::yield_now().await;
            let _ = results.send("finished");
        });
        Ok(())
    });
    stopped(&shards).unwrap();
    assert_eq!(seen.try_recv().unwrap(), "finished");
}

#[test]
fn what_is_not_done_after_the_grace_is_dropped() {
    let shards = Shards::start("test", 1).unwrap();
    let (dropped, drops) = channel();
    let (started, seen) = channel();
    shards.spawn_on(0, |_| async move {
        let _held = Dropped(dropped, "stubborn");
        let _ = started.send(());
        pending().await
    });
    seen.recv_timeout(SOON).unwrap();
    shards.request_stop(Duration::from_millis(1));
    shards.wait().unwrap();
    assert_eq!(drops.try_recv().unwrap(), "stubborn");
}

#[test]
fn a_second_stop_shortens_the_grace_but_never_lengthens_it() {
    let shards = Shards::start("test", 1).unwrap();
    shards.spawn_on(0, |_| pending());
    shards.request_stop(Duration::MAX);
    let long = shards.shared.stops[0].borrow().unwrap();
    shards.request_stop(Duration::ZERO);
    let short = shards.shared.stops[0].borrow().unwrap();
    assert!(short < long);
    shards.request_stop(Duration::MAX);
    assert_eq!(shards.shared.stops[0].borrow().unwrap(), short);
    shards.wait().unwrap();
}

#[test]
fn after_the_stop_nothing_starts_and_what_was_handed_over_is_dropped() {
    let shards = Shards::start("test", 1).unwrap();
    let handle = shards.handle(0);
    stopped(&shards).unwrap();
    let (dropped, drops) = channel();
    let held = Dropped(dropped, "socket");
    let refused = handle.try_spawn(|_| async move {
        let _held = held;
    });
    assert_eq!(refused, Err(SpawnError::Stopped));
    assert_eq!(drops.try_recv().unwrap(), "socket");
}

#[test]
fn a_shard_that_does_not_take_tasks_refuses_more_than_the_limit() {
    let shards = Shards::start("test", 1).unwrap();
    let handle = shards.handle(0);
    let (started, seen) = channel();
    let (release, blocked) = channel::<()>();
    shards.spawn_on(0, |_| async move {
        let _ = started.send(());
        let _ = blocked.recv();
        Ok(())
    });
    seen.recv_timeout(SOON).unwrap();
    for _ in 0..MAX_WAITING_TASKS {
        handle.try_spawn(|_| async {}).unwrap();
    }
    assert_eq!(handle.try_spawn(|_| async {}), Err(SpawnError::Full));
    drop(release);
    stopped(&shards).unwrap();
}

#[test]
fn dropping_the_group_stops_its_tasks() {
    let shards = Shards::start("test", 1).unwrap();
    let (dropped, drops) = channel();
    let held = Dropped(dropped, "task");
    shards.spawn_on(0, |_| async move {
        let _held = held;
        pending().await
    });
    drop(shards);
    assert_eq!(drops.recv_timeout(SOON).unwrap(), "task");
}

#[test]
fn the_number_of_shards_is_bounded() {
    assert!((1..=MAX_SHARDS).contains(&count(None).unwrap()));
    assert_eq!(count(Some(16)), Ok(16));
    let error = |setting| count(Some(setting)).expect_err("out of range").to_string();
    assert_eq!(error(0), "shards: 0 is not within 1..16");
    assert_eq!(error(17), "shards: 17 is not within 1..16");
}
