//! Whether what became of the jobs is what was promised. Pure: it reads what others gathered.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::Value;

use super::files::Stored;
use super::gather::Fate;
use super::witness::{Testimony, Told, digest};
use super::work::{Expected, Work};

/// A job whose process died so often is dead by the rule, whatever it would have become.
const CRASHES_MAX: u64 = 3;

/// Faults that are told word by word; the others only count.
const EXAMPLES_MAX: usize = 20;

/// What was found. Everything from `lost` on has to be 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Findings {
    /// Jobs that ended well, with the right result.
    pub(super) succeeded: u64,
    /// Jobs that are dead, as they have to be.
    pub(super) dead: u64,
    /// Of these, dead because their process was killed three times under them.
    pub(super) worker_lost: u64,
    /// Attempts beyond those that the work takes: what kills cost.
    pub(super) re_executions: u64,
    /// Jobs that are stored although nobody was told so: the gateway died before it could.
    pub(super) unacknowledged: u64,
    /// Accepted jobs that are not there.
    pub(super) lost: u64,
    /// Jobs that have not ended.
    pub(super) unfinished: u64,
    /// Jobs with another end or another result than the right one.
    pub(super) wrong: u64,
    /// Jobs of which a subscriber was told something else than their record says, or two things.
    pub(super) contradicted: u64,
    /// Stored jobs that nobody asked for in this form.
    pub(super) half: u64,
    /// Jobs beyond the first that one ask became, although it was made again under the key it had.
    pub(super) stored_again: u64,
    /// Jobs with more attempts or crashes than they may have.
    pub(super) excessive: u64,
    /// Some of the faults, in words.
    #[serde(skip)]
    pub(super) examples: Vec<String>,
}

impl Findings {
    /// How many faults there are, by name.
    pub(super) fn faults(&self) -> [(u64, &'static str); 7] {
        [
            (self.lost, "lost"),
            (self.unfinished, "not ended"),
            (self.wrong, "with a wrong end or result"),
            (self.contradicted, "with events that contradict"),
            (self.half, "stored as nobody asked"),
            (self.stored_again, "stored again"),
            (self.excessive, "with too many attempts"),
        ]
    }

    /// Holds what the gateway says became of the accepted jobs against what had to.
    pub(super) fn judge(&mut self, accepted: &HashMap<String, Work>, fates: &HashMap<String, Fate>) {
        for (id, work) in accepted {
            match fates.get(id) {
                None | Some(Fate::Absent) => {
                    self.lost += 1;
                    self.example(format!("job {id} of ask {} is lost", work.number()));
                }
                Some(Fate::Unreadable(why)) => {
                    self.wrong += 1;
                    self.example(format!("job {id} of ask {} cannot be read: {why}", work.number()));
                }
                Some(Fate::Present { record, result }) => self.judge_one(id, work, record, result.as_ref()),
            }
        }
    }

    fn judge_one(&mut self, id: &str, work: &Work, record: &Value, result: Option<&Value>) {
        let attempt = record["attempt"].as_u64().unwrap_or_default();
        self.re_executions += attempt.saturating_sub(work.attempts());
        if record["max_attempts"].as_u64().is_none_or(|max| attempt > max) {
            self.excessive += 1;
            self.example(format!("job {id} has {attempt} attempts: {record}"));
        }
        let class = record["error"]["class"].as_str();
        match (record["state"].as_str(), work.expected()) {
            (Some("succeeded"), Expected::Result(right)) if result == Some(&right) => self.succeeded += 1,
            (Some("dead"), Expected::Dead(right)) if class == Some(right) => self.dead += 1,
            (Some("dead"), _) if record["error"]["code"] == "worker_lost" && attempt >= CRASHES_MAX => {
                self.dead += 1;
                self.worker_lost += 1;
            }
            (Some("succeeded" | "dead" | "cancelled"), right) => {
                self.wrong += 1;
                self.example(format!("job {id} is {record} with the result {result:?}, and {right:?} is right"));
            }
            (_, _) => {
                self.unfinished += 1;
                self.example(format!("job {id} has not ended: {record}"));
            }
        }
    }

    /// Holds what a subscriber was told against the records.
    pub(super) fn hear(&mut self, testimony: &Testimony, fates: &HashMap<String, Fate>) {
        self.contradicted += testimony.contradicted;
        testimony.examples.iter().for_each(|example| self.example(example.clone()));
        for (id, told) in &testimony.told {
            let Some(Fate::Present { record, result }) = fates.get(id) else { continue };
            if !agrees(told, record, result.as_ref()) {
                self.contradicted += 1;
                self.example(format!("job {id} was told as {told:?}, and its record is {record}"));
            }
        }
    }

    /// Holds the stored rows against what was asked.
    pub(super) fn inspect(&mut self, stored: &[Stored], accepted: &HashMap<String, Work>, seed: u64) {
        let mut asked = HashSet::new();
        for row in stored {
            if !accepted.contains_key(&row.id) {
                self.unacknowledged += 1;
            }
            let number = serde_json::from_slice::<Value>(&row.message).ok().and_then(|message| message["n"].as_u64());
            match number.map(|n| Work::of(seed, n)).filter(|work| work.message().as_bytes() == row.message) {
                Some(work) if work.may_be_stored_again() || asked.insert(work.number()) => {}
                Some(work) => {
                    self.stored_again += 1;
                    self.example(format!("job {} is ask {}, which is stored already", row.id, work.number()));
                }
                None => {
                    self.half += 1;
                    self.example(format!("job {} is {}", row.id, String::from_utf8_lossy(&row.message)));
                }
            }
            if !row.has_ended {
                self.unfinished += 1;
                self.example(format!("job {} has not ended: {row:?}", row.id));
            }
            let is_lost_early = row.error.as_deref() == Some("worker_lost") && row.crashes < CRASHES_MAX;
            if row.crashes > CRASHES_MAX || row.attempt > row.max_attempts || (row.has_ended && is_lost_early) {
                self.excessive += 1;
                self.example(format!("job {} has {} crashes in {} attempts", row.id, row.crashes, row.attempt));
            }
        }
    }

    fn example(&mut self, text: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text);
        }
    }
}

fn agrees(told: &Told, record: &Value, result: Option<&Value>) -> bool {
    let (kind, content) = match record["state"].as_str() {
        Some("succeeded") => ("job.result", result.unwrap_or(&Value::Null)),
        Some("dead") => ("job.failed", &record["error"]),
        Some("cancelled") => ("job.cancelled", &Value::Null),
        _ => return false,
    };
    told.kind == kind && record["attempt"] == told.attempt && told.digest == digest(content)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SEED: u64 = 7;

    fn numbered(is_wanted: impl Fn(&Expected) -> bool) -> Work {
        let mut works = (0..).map(|n| Work::of(SEED, n));
        works.find(|work| is_wanted(&work.expected())).expect("there is one of every kind")
    }

    fn good() -> Work {
        numbered(|expected| matches!(expected, Expected::Result(_)))
    }

    fn right(work: &Work) -> Value {
        match work.expected() {
            Expected::Result(result) => result,
            Expected::Dead(class) => panic!("{class}"),
        }
    }

    fn record(state: &str, attempt: u64) -> Value {
        json!({"state": state, "attempt": attempt, "max_attempts": 10, "error": null})
    }

    fn judged(work: &Work, fate: Fate) -> Findings {
        let mut findings = Findings::default();
        let accepted = HashMap::from([("j".to_owned(), work.clone())]);
        findings.judge(&accepted, &HashMap::from([("j".to_owned(), fate)]));
        findings
    }

    fn faults(findings: &Findings) -> Vec<&'static str> {
        findings.faults().iter().filter(|(count, _)| *count > 0).map(|(_, name)| *name).collect()
    }

    #[test]
    fn what_ended_as_it_had_to_is_right() {
        let work = good();
        let fate = |attempt| Fate::Present { record: record("succeeded", attempt), result: Some(right(&work)) };
        let findings = judged(&work, fate(work.attempts()));
        assert_eq!((findings.succeeded, findings.re_executions, faults(&findings)), (1, 0, vec![]));
        assert_eq!(judged(&work, fate(work.attempts() + 2)).re_executions, 2);

        let failing = numbered(|expected| *expected == Expected::Dead("permanent"));
        let dead = json!({"state": "dead", "attempt": 1, "max_attempts": 10, "error": {"class": "permanent"}});
        let findings = judged(&failing, Fate::Present { record: dead.clone(), result: None });
        assert_eq!((findings.dead, faults(&findings)), (1, vec![]));
        assert_eq!(
            faults(&judged(&work, Fate::Present { record: dead, result: None })),
            ["with a wrong end or result"]
        );
    }

    #[test]
    fn an_invented_entry_of_the_ledger_is_lost() {
        assert_eq!(faults(&judged(&good(), Fate::Absent)), ["lost"]);
        let mut findings = Findings::default();
        findings.judge(&HashMap::from([("invented".to_owned(), good())]), &HashMap::new());
        assert_eq!((findings.lost, findings.examples.len()), (1, 1));
    }

    #[test]
    fn a_wrong_or_missing_result_is_found() {
        let work = good();
        let fate = |result| Fate::Present { record: record("succeeded", 1), result };
        let mut other = right(&work);
        other["rows"][0][0] = json!(999_999_999);
        assert_eq!(faults(&judged(&work, fate(Some(other)))), ["with a wrong end or result"]);
        assert_eq!(faults(&judged(&work, fate(None))), ["with a wrong end or result"]);
        assert_eq!(faults(&judged(&work, Fate::Unreadable("x".to_owned()))), ["with a wrong end or result"]);
    }

    #[test]
    fn what_has_not_ended_or_was_tried_too_often_is_found() {
        let work = good();
        let fate = |record| Fate::Present { record, result: Some(right(&work)) };
        assert_eq!(faults(&judged(&work, fate(record("running", 1)))), ["not ended"]);
        assert_eq!(faults(&judged(&work, fate(record("succeeded", 11)))), ["with too many attempts"]);
    }

    #[test]
    fn three_crashes_end_a_job_and_fewer_do_not() {
        let lost = |attempt: u64| {
            let error = json!({"code": "worker_lost", "class": "crash"});
            json!({"state": "dead", "attempt": attempt, "max_attempts": 10, "error": error})
        };
        let findings = judged(&good(), Fate::Present { record: lost(3), result: None });
        assert_eq!((findings.worker_lost, faults(&findings)), (1, vec![]));
        let findings = judged(&good(), Fate::Present { record: lost(2), result: None });
        assert_eq!(faults(&findings), ["with a wrong end or result"]);
    }

    #[test]
    fn events_have_to_say_what_the_record_says() {
        let work = good();
        let result = right(&work);
        let fates = HashMap::from([(
            "j".to_owned(),
            Fate::Present { record: record("succeeded", 2), result: Some(result.clone()) },
        )]);
        let heard = |kind: &str, attempt, content: &Value| {
            let told = Told { kind: kind.to_owned(), attempt, digest: digest(content) };
            let testimony = Testimony { told: HashMap::from([("j".to_owned(), told)]), ..Testimony::default() };
            let mut findings = Findings::default();
            findings.hear(&testimony, &fates);
            findings.contradicted
        };
        assert_eq!(heard("job.result", 2, &result), 0);
        assert_eq!(heard("job.result", 1, &result), 1);
        assert_eq!(heard("job.failed", 2, &result), 1);
        assert_eq!(heard("job.result", 2, &json!({})), 1);
    }

    #[test]
    fn stored_rows_have_to_be_what_was_asked() {
        let work = good();
        let row = stored("j", &work);
        let inspected = |row: Stored| {
            let mut findings = Findings::default();
            findings.inspect(&[row], &HashMap::new(), SEED);
            findings
        };
        let findings = inspected(row.clone());
        assert_eq!((findings.unacknowledged, faults(&findings)), (1, vec![]));
        let cut = row.message[..row.message.len() - 5].to_vec();
        assert_eq!(faults(&inspected(Stored { message: cut, ..row.clone() })), ["stored as nobody asked"]);
        assert_eq!(faults(&inspected(Stored { has_ended: false, ..row.clone() })), ["not ended"]);
        assert_eq!(faults(&inspected(Stored { crashes: 4, ..row.clone() })), ["with too many attempts"]);
        assert_eq!(faults(&inspected(Stored { attempt: 11, ..row.clone() })), ["with too many attempts"]);
        let early = Stored { error: Some("worker_lost".to_owned()), crashes: 2, ..row };
        assert_eq!(faults(&inspected(early)), ["with too many attempts"]);
    }

    #[test]
    fn an_ask_that_became_two_jobs_is_found() {
        let twice = |work: &Work| {
            let row = |id: &str| stored(id, work);
            let mut findings = Findings::default();
            findings.inspect(&[row("first"), row("second")], &HashMap::new(), SEED);
            findings
        };
        let findings = twice(&good());
        assert_eq!((findings.stored_again, faults(&findings)), (1, vec!["stored again"]));
        assert!(findings.examples.iter().any(|example| example.contains("second")), "{:?}", findings.examples);
        // Who shares a unique key may be a job of its own, once the one before has ended.
        let shared = (0..).map(|n| Work::of(SEED, n)).find(Work::may_be_stored_again).expect("there are some");
        assert_eq!(faults(&twice(&shared)), Vec::<&str>::new());
    }

    fn stored(id: &str, work: &Work) -> Stored {
        Stored {
            id: id.to_owned(),
            message: work.message().into_bytes(),
            has_ended: true,
            attempt: 1,
            max_attempts: 10,
            crashes: 0,
            error: None,
        }
    }
}
