//! What was measured: for a person as a table, for a program as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::ledger::Tally;
use crate::cli::delays::{ALL, Percentiles, milliseconds};
use crate::cli::output::printable;
use crate::demo::grouped;

/// The gateway's process, when it could be seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ServerFigures {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) cpu_us_per_delivery: Option<f64>,
    /// 1 is one core.
    pub(super) cpu_cores: f64,
    pub(super) rss_bytes: u64,
}

/// All figures of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    pub(super) url: String,
    pub(super) connections: u64,
    pub(super) connections_failed: u64,
    pub(super) groups: u64,
    pub(super) publishers: u64,
    pub(super) in_flight: u64,
    pub(super) size: u64,
    pub(super) seconds: f64,
    pub(super) connect_ms: Percentiles,
    pub(super) published: u64,
    pub(super) published_per_second: f64,
    pub(super) answer_ms: Percentiles,
    pub(super) deliveries: u64,
    pub(super) deliveries_per_second: f64,
    pub(super) delivery_ms: Percentiles,
    pub(super) bytes: u64,
    pub(super) bytes_per_second: f64,
    /// Publications that were not taken, by code.
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) lost: u64,
    pub(super) told_missing: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    pub(super) misrouted: u64,
    /// `null` when it is unknown.
    pub(super) server: Option<ServerFigures>,
    /// Why connections failed, or why it ended before its time.
    pub(super) notes: Vec<String>,
    /// A publisher had to give up, or there was nothing to see.
    pub(super) broken: bool,
}

impl Figures {
    /// Enters what became of the messages.
    pub(super) fn tally(&mut self, tally: Tally) {
        let Tally { lost, told_missing, duplicated, reordered } = tally;
        (self.lost, self.told_missing) = (lost, told_missing);
        (self.duplicated, self.reordered) = (duplicated, reordered);
    }

    /// Sets what is counted by the second.
    pub(super) fn took(&mut self, time: Duration) {
        self.seconds = round(time.as_secs_f64());
        let rate = |count: u64| if time.is_zero() { 0.0 } else { (count as f64 / time.as_secs_f64()).round() };
        self.published_per_second = rate(self.published);
        self.deliveries_per_second = rate(self.deliveries);
        self.bytes_per_second = rate(self.bytes);
    }

    /// What is wrong, in one sentence; `None` when nothing is.
    pub(super) fn verdict(&self) -> Option<String> {
        let counts = [
            (self.lost, "lost"),
            (self.duplicated, "duplicated"),
            (self.reordered, "reordered"),
            (self.misrouted, "misrouted"),
        ];
        let found = counts.iter().filter(|(count, _)| *count > 0);
        let mut wrong: Vec<String> = found.map(|(count, what)| format!("{count} deliveries {what}")).collect();
        if self.connections_failed > 0 {
            wrong.push(format!("{} connections failed", self.connections_failed));
        }
        if self.broken {
            wrong.push("it could not be carried through".to_owned());
        }
        if wrong.is_empty() {
            return None;
        }
        Some(format!("the run was not clean: {}", wrong.join(", ")))
    }

    /// The figures as one line of JSON.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are JSON")
    }

    /// The figures as a table.
    pub(super) fn table(&self) -> String {
        let rows = [
            ("gateway", self.url.clone()),
            ("connections", self.connections_line()),
            ("connect", milliseconds(&self.connect_ms, &["p50", "p99", "max"])),
            ("published", format!("{}, {}/s", grouped(self.published), grouped(self.published_per_second as u64))),
            ("answer", milliseconds(&self.answer_ms, &ALL)),
            ("deliveries", format!("{}, {}/s", grouped(self.deliveries), grouped(self.deliveries_per_second as u64))),
            ("delivery", milliseconds(&self.delivery_ms, &ALL)),
            ("read", format!("{}, {}/s", bytes(self.bytes as f64), bytes(self.bytes_per_second))),
            ("server", self.server_line()),
            ("errors", self.errors_line()),
            ("lost", grouped(self.lost)),
            ("told missing", grouped(self.told_missing)),
            ("duplicated", grouped(self.duplicated)),
            ("reordered", grouped(self.reordered)),
            ("misrouted", grouped(self.misrouted)),
        ];
        let lines = rows.iter().map(|(name, value)| format!("{name:<13} {}", printable(value)));
        let notes = self.notes.iter().map(|note| format!("note: {}", printable(note)));
        lines.chain(notes).collect::<Vec<_>>().join("\n")
    }

    fn connections_line(&self) -> String {
        let groups = if self.groups == 1 { "1 group".to_owned() } else { format!("{} groups", grouped(self.groups)) };
        let failed = match self.connections_failed {
            0 => String::new(),
            failed => format!(", {} failed", grouped(failed)),
        };
        format!("{} in {groups}{failed}", grouped(self.connections))
    }

    fn server_line(&self) -> String {
        let Some(server) = &self.server else {
            return "unknown (on another machine, another user's, or ended)".to_owned();
        };
        let cpu = server.cpu_us_per_delivery.map_or("-".to_owned(), |us| format!("{us} µs"));
        format!(
            "{} ({}): CPU {cpu} per delivery, {} cores; RSS {}",
            server.name,
            server.pid,
            server.cpu_cores,
            bytes(server.rss_bytes as f64)
        )
    }

    fn errors_line(&self) -> String {
        if self.errors.is_empty() {
            return "0".to_owned();
        }
        self.errors.iter().map(|(code, count)| format!("{code} {}", grouped(*count))).collect::<Vec<_>>().join(", ")
    }
}

fn bytes(count: f64) -> String {
    match count {
        c if c >= 1e9 => format!("{:.2} GB", c / 1e9),
        c if c >= 1e6 => format!("{:.1} MB", c / 1e6),
        c if c >= 1e3 => format!("{:.1} kB", c / 1e3),
        c => format!("{c:.0} B"),
    }
}

/// Three digits behind the point.
pub(super) fn round(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_run_has_no_verdict_and_each_fault_has_one() {
        assert_eq!(Figures { told_missing: 5, ..Figures::default() }.verdict(), None);
        for (figures, word) in [
            (Figures { lost: 1, ..Figures::default() }, "lost"),
            (Figures { duplicated: 1, ..Figures::default() }, "duplicated"),
            (Figures { reordered: 1, ..Figures::default() }, "reordered"),
            (Figures { misrouted: 1, ..Figures::default() }, "misrouted"),
            (Figures { connections_failed: 1, ..Figures::default() }, "failed"),
            (Figures { broken: true, ..Figures::default() }, "carried through"),
        ] {
            assert!(figures.verdict().is_some_and(|why| why.contains(word)), "{word}");
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_figure() {
        let mut figures = Figures { deliveries: 1_234_567, published: 12_346, bytes: 5_000_000, ..Figures::default() };
        figures.took(Duration::from_secs(2));
        figures.errors.insert("overloaded".to_owned(), 3);
        figures.server = Some(ServerFigures {
            pid: 7,
            name: "groupcast".to_owned(),
            cpu_us_per_delivery: Some(1.25),
            cpu_cores: 0.8,
            rss_bytes: 9_000_000,
        });
        let table = figures.table();
        for line in [
            "deliveries    1,234,567, 617,284/s",
            "published     12,346, 6,173/s",
            "read          5.0 MB, 2.5 MB/s",
            "server        groupcast (7): CPU 1.25 µs per delivery, 0.8 cores; RSS 9.0 MB",
            "errors        overloaded 3",
            "delivery      p50 -   p90 -   p99 -   p99.9 -   max - ms",
        ] {
            assert!(table.lines().any(|found| found == line), "`{line}` is not in\n{table}");
        }
        figures.server = None;
        assert!(figures.table().contains("server        unknown"));
    }
}
