//! The progress of a run, on standard error, for somebody at a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use super::ledger::Ledger;
use crate::demo::grouped;

/// A bar; nothing where nobody looks.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// A bar for so many kills.
    pub(super) fn stderr(kills: u32) -> Self {
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::new(u64::from(kills)).with_style(style()),
            false => ProgressBar::hidden(),
        };
        bar.set_prefix("killing");
        Self(bar)
    }

    /// Shows one more kill.
    pub(super) fn killed(&self, ledger: &Ledger) {
        self.0.set_message(format!("{} jobs accepted", grouped(ledger.len())));
        self.0.inc(1);
    }

    /// Shows what is done after the last kill.
    pub(super) fn step(&self, what: &'static str) {
        self.0.set_prefix(what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:<9} [{bar:28}] {pos}/{len} kills  {msg}")
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
