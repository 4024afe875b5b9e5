//! How long to wait between attempts to connect.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

/// From the first wait to the longest, each half of it by chance.
const FIRST: Duration = Duration::from_millis(50);
const MAX: Duration = Duration::from_secs(1);

/// The next wait.
#[derive(Debug)]
pub(super) struct Retry(Duration);

impl Default for Retry {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Retry {
    pub(super) async fn wait(&mut self) {
        sleep(jittered(self.0)).await;
        self.0 = (self.0 * 2).min(MAX);
    }
}

fn jittered(wait: Duration) -> Duration {
    // Spread enough to keep nodes apart; nothing depends on it being unpredictable.
    let chance = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    wait / 2 + (wait / 2).mul_f64(f64::from(chance % 1000) / 1000.0)
}
