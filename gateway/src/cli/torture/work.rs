//! `Work`: one thing that is asked for. What it is, and what has to come of it, follows from its number and the seed.

use serde_json::{Value, json};

use super::chance::Chance;

/// Asks of one unique key that follow each other.
const SHARERS: u64 = 5;

/// One thing that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Work {
    n: u64,
    kind: Kind,
    /// A text that no other work of the run has (but its sharers).
    tag: String,
    factor: u64,
    size: u64,
}

/// What is special about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Some rows at once.
    Quick,
    /// Takes so long that kills find it running.
    Slow,
    /// Some rows, after a delay.
    Later,
    /// Some rows, under a unique key that its neighbours ask with, too.
    Shared,
    /// Takes longer than it may: is tried twice, then dead.
    Endless,
    /// Fails, for good.
    Faulty,
}

/// What has to come of work.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expected {
    /// This result, as it is read and as it travels in an event.
    Result(Value),
    /// Dead, with an error of this class.
    Dead(&'static str),
}

impl Work {
    /// The work of a number.
    pub(super) fn of(seed: u64, n: u64) -> Self {
        let block = n / SHARERS;
        // One block in eight is shared; its asks differ in nothing but the number.
        let shared = Chance::new(seed, block).below(8) == 0;
        let mut chance = Chance::new(seed, if shared { !block } else { n | 1 << 62 });
        let kind = match chance.below(100) {
            _ if shared => Kind::Shared,
            0..12 => Kind::Slow,
            12..20 => Kind::Later,
            20..23 => Kind::Endless,
            23..26 => Kind::Faulty,
            _ => Kind::Quick,
        };
        let tag = format!("{:016x}", chance.number());
        let factor = chance.below(1_000_000);
        let size = match kind {
            Kind::Slow => 50_000 + chance.below(400_000),
            Kind::Quick | Kind::Later | Kind::Shared | Kind::Endless | Kind::Faulty => 1 + chance.below(30),
        };
        Self { n, kind, tag, factor, size }
    }

    /// Its number.
    pub(super) fn number(&self) -> u64 {
        self.n
    }

    /// The key under which it may be asked for again when no answer came.
    pub(super) fn idempotency_key(&self) -> String {
        format!("torture-{}-{}", self.tag, self.n)
    }

    /// The message that asks for it, byte by byte.
    pub(super) fn message(&self) -> String {
        let query = match self.kind {
            Kind::Quick | Kind::Later | Kind::Shared => "rows",
            Kind::Slow => "slow",
            Kind::Endless => "endless",
            Kind::Faulty => "faulty",
        };
        let params = json!({"tag": self.tag, "number": self.factor, "size": self.size});
        let mut message = json!({"type": "torture", "n": self.n, "query": query, "params": params});
        match self.kind {
            Kind::Later => message["delay_ms"] = json!(100 + self.factor % 1400),
            Kind::Shared => {
                // Long enough that the next ask finds it alive.
                message["delay_ms"] = json!(300);
                message["unique_key"] = json!(self.tag);
            }
            Kind::Quick | Kind::Slow | Kind::Endless | Kind::Faulty => {}
        }
        message.to_string()
    }

    /// Whether a job of the other work may stand for this one.
    pub(super) fn is_same_job(&self, other: &Self) -> bool {
        let is_shared = self.kind == Kind::Shared && other.kind == Kind::Shared && self.tag == other.tag;
        self == other || is_shared
    }

    /// Whether several jobs of it may be stored: one after the other had its key.
    pub(super) fn may_be_stored_again(&self) -> bool {
        self.kind == Kind::Shared
    }

    /// How many attempts it takes when nobody kills anything.
    pub(super) fn attempts(&self) -> u64 {
        if self.kind == Kind::Endless { 2 } else { 1 }
    }

    /// What has to come of it.
    pub(super) fn expected(&self) -> Expected {
        let (tag, number, size) = (&self.tag, self.factor, self.size);
        let (columns, rows): (_, Vec<Value>) = match self.kind {
            Kind::Quick | Kind::Later | Kind::Shared => {
                (["i", "product", "label"], (1..=size).map(|i| json!([i, i * number, format!("{tag}-{i}")])).collect())
            }
            Kind::Slow => (["label", "number", "total"], vec![json!([tag, number, size * (size + 1) / 2])]),
            Kind::Endless => return Expected::Dead("timeout"),
            Kind::Faulty => return Expected::Dead("permanent"),
        };
        Expected::Result(json!({"columns": columns, "rows": rows, "row_count": rows.len(), "truncated": false}))
    }
}

/// The named queries that the work asks: each takes a `tag`, a `number` and a `size`.
pub(super) const QUERIES: &str = r#"
[[query]]
id = 1
name = "rows"
source = "none"
sql = """
with recursive n(i) as (select 1 union all select i + 1 from n where i < :size)
select i, i * :number as product, :tag || '-' || i as label from n"""
params.tag = { type = "text" }
params.number = { type = "integer" }
params.size = { type = "integer" }

[[query]]
id = 2
name = "slow"
source = "none"
sql = """
with recursive n(i) as (select 1 union all select i + 1 from n where i < :size)
select :tag as label, :number as number, sum(i) as total from n"""
params.tag = { type = "text" }
params.number = { type = "integer" }
params.size = { type = "integer" }
timeout = "60s"

[[query]]
id = 3
name = "endless"
source = "none"
sql = """
with recursive n(i) as (select :size union all select i + 1 from n)
select :tag as label, :number as number, count(*) as total from n"""
params.tag = { type = "text" }
params.number = { type = "integer" }
params.size = { type = "integer" }
timeout = "20ms"

[[query]]
id = 4
name = "faulty"
source = "none"
sql = "select abs(-9223372036854775807 - (:size > 0)) as too_big, :tag as label, :number as number"
params.tag = { type = "text" }
params.number = { type = "integer" }
params.size = { type = "integer" }
"#;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_run_has_work_of_every_kind_and_can_be_repeated() {
        let mut kinds = BTreeMap::<String, u64>::new();
        for n in 0..2000 {
            let work = Work::of(7, n);
            assert_eq!(work, Work::of(7, n));
            assert_ne!(work, Work::of(8, n));
            *kinds.entry(format!("{:?}", work.kind)).or_default() += 1;
        }
        assert_eq!(kinds.len(), 6, "{kinds:?}");
        assert!(kinds.values().all(|count| *count > 20), "{kinds:?}");
    }

    #[test]
    fn no_two_tell_the_same_but_sharers() {
        let works: Vec<Work> = (0..1000).map(|n| Work::of(7, n)).collect();
        for (one, other) in works.iter().zip(works.iter().skip(1)) {
            let share = one.kind == Kind::Shared && other.kind == Kind::Shared && one.n / SHARERS == other.n / SHARERS;
            assert_eq!(one.is_same_job(other), share, "{one:?} {other:?}");
            assert_eq!(one.expected() == other.expected() && matches!(one.expected(), Expected::Result(_)), share);
            assert_ne!(one.message(), other.message());
            assert_ne!(one.idempotency_key(), other.idempotency_key());
        }
    }
}
