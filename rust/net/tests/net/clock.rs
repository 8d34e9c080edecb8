//! The clock of a test that has paused it. A runtime moves such a clock by itself when it has nothing to
//! do; what is under way in a socket may not have arrived by then. So here it always has something to do.

use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::advance;

/// Yields to the other tasks and the sockets often enough for what has been started to be done.
pub(crate) const TURNS: usize = 50;

/// Does `work` while the clock stands still.
pub(crate) async fn in_no_time<T>(work: impl Future<Output = T>) -> T {
    let busy = async {
        loop {
            yield_now().await;
        }
    };
    tokio::select! {
        done = work => done,
        () = busy => unreachable!(),
    }
}

/// Does `work` while the clock moves, in steps so small that what is due is done in its order.
pub(crate) async fn as_time_passes<T>(work: impl Future<Output = T>) -> T {
    tokio::select! {
        done = work => done,
        () = pass(Duration::from_secs(3_600)) => panic!("it takes more than an hour"),
    }
}

/// Moves the clock by `time`.
pub(crate) async fn pass(time: Duration) {
    const STEP: Duration = Duration::from_millis(50);
    let mut left = time;
    while !left.is_zero() {
        let step = left.min(STEP);
        advance(step).await;
        for _ in 0..TURNS {
            yield_now().await;
        }
        left -= step;
    }
}
