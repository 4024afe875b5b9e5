//! Deadlines: nothing in a test waits for ever, and nothing sleeps and hopes.

use std::future::Future;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

/// How long one step of a test may take.
pub const STEP: Duration = Duration::from_secs(20);

/// Waits for one step; panics with what was awaited when it takes too long.
pub async fn within<T>(what: &str, step: impl Future<Output = T>) -> T {
    within_time(STEP, what, step).await
}

/// As [`within`], with a deadline of its own.
pub async fn within_time<T>(deadline: Duration, what: &str, step: impl Future<Output = T>) -> T {
    match timeout(deadline, step).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {} s", deadline.as_secs()),
    }
}

/// Looks again and again until a state is reached; panics with what was awaited when it is not.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let mut turns = interval(Duration::from_millis(25));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let looked = async {
        loop {
            turns.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    within(what, looked).await
}
