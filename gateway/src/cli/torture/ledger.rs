//! `Ledger`: what the gateway said it had taken. Kept in this process, which is never killed; an entry is made after the
//! 202 was read, and never taken back.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::work::Work;

/// What was accepted, and how asking went. Shared by the producers.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accepted: Mutex<HashMap<String, Work>>,
    count: AtomicU64,
    /// Answers with 202.
    pub(super) answers: AtomicU64,
    /// Asks that were made again because no answer came.
    pub(super) repeated: AtomicU64,
    /// Of these, how many were answered as work that exists already.
    pub(super) recognised: AtomicU64,
    /// Asks that were refused, by code. They were made again.
    pub(super) refused: Mutex<BTreeMap<String, u64>>,
    /// Answers that contradict each other.
    pub(super) contradictions: Mutex<Vec<String>>,
}

impl Ledger {
    /// Enters a job that was accepted for some work.
    pub(super) fn accept(&self, job: String, work: Work) {
        self.answers.fetch_add(1, Relaxed);
        let mut accepted = self.accepted.lock();
        match accepted.get(&job) {
            Some(known) if !known.is_same_job(&work) => {
                let told = format!("job {job} was given to the asks {} and {}", known.number(), work.number());
                self.contradictions.lock().push(told);
            }
            Some(_) => {}
            None => {
                accepted.insert(job, work);
                self.count.fetch_add(1, Relaxed);
            }
        }
    }

    /// Counts a refusal.
    pub(super) fn refuse(&self, code: &str) {
        *self.refused.lock().entry(code.to_owned()).or_default() += 1;
    }

    /// How many jobs there are.
    pub(super) fn len(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// All jobs.
    pub(super) fn jobs(&self) -> HashMap<String, Work> {
        self.accepted.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_counted_once_and_belongs_to_one_ask() {
        let ledger = Ledger::default();
        ledger.accept("a".to_owned(), Work::of(7, 1));
        ledger.accept("a".to_owned(), Work::of(7, 1));
        assert_eq!((ledger.len(), ledger.answers.load(Relaxed)), (1, 2));
        assert!(ledger.contradictions.lock().is_empty());
        ledger.accept("a".to_owned(), Work::of(7, 1000));
        assert_eq!(ledger.contradictions.lock().len(), 1);
    }
}
