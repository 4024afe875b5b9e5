//! The progress of a run, on standard error, for somebody at a terminal.

use std::io::IsTerminal;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::receive::Shared;

const TICK: Duration = Duration::from_millis(200);

/// A bar that follows the counters; nothing where nobody looks.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn stderr() -> Self {
        Self(if std::io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() })
    }

    /// Shows how many of the connections are open, until it is dropped by a `select!`.
    pub(super) async fn connecting(&self, shared: &Shared, connections: u32) {
        self.begin("connections", u64::from(connections));
        self.follow(|bar| bar.set_position(shared.opened.load(Relaxed))).await
    }

    /// Shows the time and the deliveries, likewise.
    pub(super) async fn publishing(&self, what: &str, shared: &Shared, time: Duration) {
        self.begin(what, time.as_millis() as u64);
        let (begin, mut before) = (shared.clock.now(), shared.window.settled());
        self.follow(|bar| {
            let settled = shared.window.settled();
            bar.set_position((shared.clock.now() - begin) / 1_000_000);
            bar.set_message(format!("{:.0} deliveries/s", (settled - before) as f64 / TICK.as_secs_f64()));
            before = settled;
        })
        .await
    }

    fn begin(&self, what: &str, len: u64) {
        self.0.set_style(style());
        self.0.set_length(len);
        self.0.set_position(0);
        self.0.set_message("");
        self.0.set_prefix(what.to_owned());
    }

    async fn follow(&self, mut update: impl FnMut(&ProgressBar)) -> ! {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            update(&self.0);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:<11} [{bar:28}] {percent:>3} %  {msg}")
        .expect("the template is a constant and tested")
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_template_of_the_bar_is_valid() {
        drop(super::style());
    }
}
