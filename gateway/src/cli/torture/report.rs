//! What came of a run: for a person as a table, for a program as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::judge::Findings;
use super::level;
use crate::cli::delays::{Percentiles, milliseconds};
use crate::cli::output::printable;
use crate::config::consumer::Durability;
use crate::demo::grouped;

/// All figures of a run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figures {
    pub(super) store: &'static str,
    /// Gateways that share the store.
    pub(super) processes: u32,
    pub(super) durability: Durability,
    pub(super) seed: u64,
    pub(super) seconds: f64,
    /// How often the gateway was killed, by where it was.
    pub(super) kills: BTreeMap<String, u64>,
    /// Jobs in the ledger.
    pub(super) acked: u64,
    /// Asks that got no answer and were made again.
    pub(super) repeated_asks: u64,
    /// Of these, answered with the job that was stored before.
    pub(super) recognised_asks: u64,
    pub(super) refused_asks: BTreeMap<String, u64>,
    #[serde(flatten)]
    pub(super) findings: Findings,
    /// How often one stood still for longer than its lease.
    pub(super) stalls: u64,
    /// Kills and stalls × jobs that run at once.
    pub(super) re_executions_max: u64,
    /// Late reports that were refused, as far as gateways lived to tell.
    pub(super) fenced: u64,
    /// Terminal events that a subscriber was told.
    pub(super) events: u64,
    pub(super) events_repeated: u64,
    pub(super) events_missed: u64,
    /// From the start of a process until it answers `/readyz`.
    pub(super) ready_ms: Percentiles,
    /// From the start of a process until it has picked up a job; of several, from a kill until its jobs ran elsewhere.
    pub(super) recovery_ms: Percentiles,
    /// Starts after which no job was seen to be picked up.
    pub(super) recoveries_unseen: u64,
    pub(super) recovery_max_ms: f64,
    /// At the 99th percentile.
    pub(super) recovery_is_late: bool,
    pub(super) integrity_checks: u64,
    /// What is wrong with the store, and what else kept the run from being what it should.
    pub(super) faults: Vec<String>,
}

impl Figures {
    /// What is wrong, in one sentence; `None` when nothing is.
    pub(super) fn verdict(&self) -> Option<String> {
        let mut wrong: Vec<String> = Vec::new();
        let faults = self.findings.faults();
        wrong.extend(faults.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")));
        if self.findings.re_executions > self.re_executions_max {
            let (done, max) = (self.findings.re_executions, self.re_executions_max);
            wrong.push(format!("{done} executed again where {max} could be"));
        }
        if self.recovery_is_late {
            wrong.push(format!("a recovery in 100 took longer than {} ms", self.recovery_max_ms));
        }
        wrong.extend(self.faults.iter().cloned());
        (!wrong.is_empty()).then(|| format!("the gateway did not keep its word: {}", wrong.join(", ")))
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("figures have string keys and finite numbers")
    }

    pub(super) fn table(&self) -> String {
        let found = &self.findings;
        let rows = [
            ("store", self.store_line()),
            ("kills", self.kills_line()),
            ("acked", self.acked_line()),
            ("ended", format!("{} well, {} dead as they had to be", grouped(found.succeeded), grouped(found.dead))),
            ("lost", grouped(found.lost)),
            ("not ended", grouped(found.unfinished)),
            ("wrong", grouped(found.wrong)),
            ("contradicted", grouped(found.contradicted)),
            ("half", format!("{}; whole, but without an answer: {}", found.half, grouped(found.unacknowledged))),
            ("duplicated", self.duplicated_line()),
            ("fenced", grouped(self.fenced)),
            ("events", self.events_line()),
            ("ready", milliseconds(&self.ready_ms, &SHOWN)),
            ("recovery", self.recovery_line()),
            ("integrity", format!("{} checks of the files", self.integrity_checks)),
            ("seed", self.seed.to_string()),
        ];
        let lines = rows.iter().map(|(name, value)| format!("{name:<13} {}", printable(value)));
        let notes = found.examples.iter().map(|example| format!("fault: {}", printable(example)));
        lines.chain(notes).collect::<Vec<_>>().join("\n")
    }

    fn store_line(&self) -> String {
        let (store, level) = (self.store, level(self.durability));
        match self.processes {
            1 => format!("{store}, durability {level}"),
            processes => format!("{store}, durability {level}, {processes} gateways; {} stood still", self.stalls),
        }
    }

    fn kills_line(&self) -> String {
        let total: u64 = self.kills.values().sum();
        let each: Vec<String> = self.kills.iter().map(|(at, count)| format!("{count} {at}")).collect();
        format!("{} in {} s: {}", grouped(total), self.seconds, each.join(", "))
    }

    fn acked_line(&self) -> String {
        let refused: Vec<String> = self.refused_asks.iter().map(|(code, count)| format!("{code} {count}")).collect();
        let refused = if refused.is_empty() { "0".to_owned() } else { refused.join(", ") };
        let (acked, again, known) = (grouped(self.acked), grouped(self.repeated_asks), grouped(self.recognised_asks));
        format!("{acked}; asked again without an answer: {again} (recognised {known}); refused: {refused}")
    }

    fn duplicated_line(&self) -> String {
        let Findings { re_executions, worker_lost, stored_again, .. } = self.findings;
        let (done, max) = (grouped(re_executions), grouped(self.re_executions_max));
        format!(
            "{done} executed again, of at most {max}; stored again: {stored_again}; dead after three kills: {worker_lost}"
        )
    }

    fn events_line(&self) -> String {
        let (told, repeated) = (grouped(self.events), grouped(self.events_repeated));
        format!("{told} jobs told, {repeated} told again, {} told to be missed", grouped(self.events_missed))
    }

    fn recovery_line(&self) -> String {
        let unseen = match self.recoveries_unseen {
            0 => String::new(),
            count => format!(" ({} were killed before)", grouped(count)),
        };
        format!("{}{unseen}", milliseconds(&self.recovery_ms, &SHOWN))
    }
}

const SHOWN: [&str; 3] = ["p50", "p99", "max"];

/// Milliseconds with three digits behind the point.
pub(super) fn in_ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        Figures {
            store: "sqlite",
            processes: 1,
            stalls: 0,
            durability: Durability::Disk,
            seed: 7,
            seconds: 12.5,
            kills: BTreeMap::from([("at random".to_owned(), 20)]),
            acked: 1234,
            repeated_asks: 5,
            recognised_asks: 4,
            refused_asks: BTreeMap::new(),
            findings: Findings { succeeded: 1200, dead: 34, re_executions: 9, ..Findings::default() },
            re_executions_max: 80,
            fenced: 0,
            events: 1230,
            events_repeated: 2,
            events_missed: 0,
            ready_ms: Percentiles::default(),
            recovery_ms: Percentiles::default(),
            recoveries_unseen: 1,
            recovery_max_ms: 1000.0,
            recovery_is_late: false,
            integrity_checks: 3,
            faults: Vec::new(),
        }
    }

    #[test]
    fn a_clean_run_has_no_verdict_and_each_fault_has_one() {
        assert_eq!(figures().verdict(), None);
        let found = |findings| Figures { findings, ..figures() };
        for (figures, word) in [
            (found(Findings { lost: 1, ..Findings::default() }), "1 lost"),
            (found(Findings { unfinished: 1, ..Findings::default() }), "not ended"),
            (found(Findings { wrong: 1, ..Findings::default() }), "wrong"),
            (found(Findings { contradicted: 1, ..Findings::default() }), "contradict"),
            (found(Findings { half: 1, ..Findings::default() }), "nobody asked"),
            (found(Findings { stored_again: 1, ..Findings::default() }), "stored again"),
            (found(Findings { excessive: 1, ..Findings::default() }), "attempts"),
            (found(Findings { re_executions: 81, ..Findings::default() }), "81 executed again"),
            (Figures { recovery_is_late: true, ..figures() }, "1000 ms"),
            (Figures { faults: vec!["jobs.db is damaged".to_owned()], ..figures() }, "damaged"),
        ] {
            assert!(figures.verdict().is_some_and(|why| why.contains(word)), "{word}");
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_figure() {
        let table = figures().table();
        for line in [
            "store         sqlite, durability disk",
            "kills         20 in 12.5 s: 20 at random",
            "acked         1,234; asked again without an answer: 5 (recognised 4); refused: 0",
            "ended         1,200 well, 34 dead as they had to be",
            "lost          0",
            "duplicated    9 executed again, of at most 80; stored again: 0; dead after three kills: 0",
            "recovery      p50 -   p99 -   max - ms (1 were killed before)",
            "seed          7",
        ] {
            assert!(table.lines().any(|found| found == line), "`{line}` is not in\n{table}");
        }
    }
}
