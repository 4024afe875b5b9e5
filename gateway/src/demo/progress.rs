//! How long work is shown on stderr: a bar in a terminal, one line at the start and one at the end elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Where the progress of [`data::load`](super::data::load) is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A bar that moves.
    Bar,
    /// Lines, for logs and pipes.
    Lines,
    /// Nowhere.
    Hidden,
}

impl Progress {
    /// A bar if stderr is a terminal, lines otherwise.
    pub fn stderr() -> Self {
        if std::io::stderr().is_terminal() { Self::Bar } else { Self::Lines }
    }

    /// Begins work of `total` bytes.
    pub(super) fn start(self, what: &str, total: u64) -> Running {
        let bar = match self {
            Self::Bar => bar(what, total),
            Self::Lines | Self::Hidden => ProgressBar::hidden(),
        };
        if self == Self::Lines {
            eprintln!("{what} ...");
        }
        Running { kind: self, bar }
    }
}

fn bar(what: &str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:28}] {percent:>3} %  {msg}")
        .expect("the template is a constant and tested")
        .progress_chars("=> ");
    let bar = ProgressBar::new(total).with_style(style).with_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Work that is going on.
pub(super) struct Running {
    kind: Progress,
    bar: ProgressBar,
}

impl Running {
    /// Names the step that runs.
    pub(super) fn step(&self, step: &'static str) {
        self.bar.set_message(step);
    }

    /// `bytes` are done.
    pub(super) fn at(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// Ends with a sentence that stays on the screen.
    pub(super) fn finish(self, outcome: &str) {
        self.bar.finish_and_clear();
        if self.kind != Progress::Hidden {
            eprintln!("{outcome}");
        }
    }
}

/// An error on the way clears the bar, so that the message stands alone.
impl Drop for Running {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A number as people read it: `336,776`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in
            [(7, "7"), (999, "999"), (10_205, "10,205"), (336_776, "336,776"), (1_000_000, "1,000,000")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn the_template_of_the_bar_is_valid() {
        bar("loading", 10).finish_and_clear();
    }
}
