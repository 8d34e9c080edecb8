//! The clock of a test that has paused it. A runtime moves such a clock by itself when it has nothing to
//! do; what is under way in a socket may not have arrived by then. So here it always has something to do.

use tokio::task::yield_now;

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
