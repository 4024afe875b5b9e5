//! What was measured: for a person as a table, for a program as JSON.

use serde::Serialize;

use super::disk::Rate;
use crate::cli::delays::{ALL, Percentiles, milliseconds};
use crate::config::consumer::Durability;
use crate::demo::grouped;

/// All figures of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Figures {
    pub(super) durability: Durability,
    pub(super) disk: Rate,
    pub(super) clients: u32,
    /// Jobs that were stored, none of them due.
    pub(super) accepted: u64,
    pub(super) seconds: f64,
    pub(super) answer_ms: Percentiles,
    /// Jobs that were due at once.
    pub(super) due: u64,
    /// Of these, which succeeded at the first attempt.
    pub(super) succeeded_at_once: u64,
    pub(super) due_answer_ms: Percentiles,
    /// From stored to begun.
    pub(super) pickup_ms: Percentiles,
}

impl Figures {
    /// Enqueues a second.
    fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.accepted as f64 / self.seconds } else { 0.0 }
    }

    /// Enqueues for each time that the disk alone would sync.
    fn times_the_disk(&self) -> f64 {
        if self.disk.syncs_per_second > 0.0 { self.rate() / self.disk.syncs_per_second } else { 0.0 }
    }

    /// What is wrong, in one sentence; `None` when nothing is.
    pub(super) fn verdict(&self) -> Option<String> {
        if self.accepted == 0 || self.due == 0 {
            return Some("nothing was accepted".to_owned());
        }
        let others = self.due - self.succeeded_at_once;
        (others > 0).then(|| format!("{others} of {} jobs did not succeed at the first attempt", self.due))
    }

    pub(super) fn json(&self) -> String {
        #[derive(Serialize)]
        struct Told<'a> {
            #[serde(flatten)]
            figures: &'a Figures,
            accepted_per_second: f64,
            times_the_disk: f64,
        }
        let round = |number: f64| (number * 100.0).round() / 100.0;
        let told = Told {
            figures: self,
            accepted_per_second: round(self.rate()),
            times_the_disk: round(self.times_the_disk()),
        };
        serde_json::to_string(&told).expect("figures have string keys and finite numbers")
    }

    pub(super) fn table(&self) -> String {
        let (rate, level) = (grouped(self.rate() as u64), crate::cli::torture::level(self.durability));
        let rows = [
            ("durability", level.to_owned()),
            ("disk alone", {
                let syncs = grouped(self.disk.syncs_per_second as u64);
                format!("{syncs} syncs/s; {}", milliseconds(&self.disk.sync_ms, &SHOWN))
            }),
            ("accepted", {
                let (jobs, times) = (grouped(self.accepted), self.times_the_disk());
                format!("{jobs} jobs of {} clients, {rate}/s: {times:.1} × the disk alone", self.clients)
            }),
            ("answer", milliseconds(&self.answer_ms, &ALL)),
            ("one by one", format!("{} jobs; answer {}", grouped(self.due), milliseconds(&self.due_answer_ms, &SHOWN))),
            ("pickup", milliseconds(&self.pickup_ms, &ALL)),
            ("succeeded", format!("{} of {} at the first attempt", grouped(self.succeeded_at_once), grouped(self.due))),
        ];
        rows.iter().map(|(name, value)| format!("{name:<13} {value}")).collect::<Vec<_>>().join("\n")
    }
}

const SHOWN: [&str; 3] = ["p50", "p99", "max"];

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let disk = Rate { syncs_per_second: 500.0, ..Rate::default() };
        Figures {
            disk,
            clients: 32,
            accepted: 20_000,
            seconds: 4.0,
            due: 10,
            succeeded_at_once: 10,
            ..Figures::default()
        }
    }

    #[test]
    fn the_disk_is_the_measure() {
        assert!(
            figures().table().contains("20,000 jobs of 32 clients, 5,000/s: 10.0 × the disk alone"),
            "{}",
            figures().table()
        );
        assert!(figures().json().contains("\"times_the_disk\":10.0"), "{}", figures().json());
    }

    #[test]
    fn a_job_that_failed_is_told() {
        assert_eq!(figures().verdict(), None);
        assert!(Figures { succeeded_at_once: 9, ..figures() }.verdict().is_some());
        assert!(Figures { accepted: 0, ..figures() }.verdict().is_some());
    }
}
