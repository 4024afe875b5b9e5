//! `Table`: the sets there are, what is due, and what may run. Pure: the time and who is in a group are handed in.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use groupcast_protocol::{ErrorCode, GroupName, Refusal};
use tokio::time::Instant;

use super::known::{Failed, Known};
use super::question::Question;

/// How long a set that nobody is in is kept: who reconnects does not make everything be asked again.
const LINGER: Duration = Duration::from_secs(10);
/// Two runs of a set begin at least so far apart, however often it is invalidated.
const APART: Duration = Duration::from_millis(100);
/// After this a set tries again that failed in a way that may pass by itself.
const RETRY_SOON: Duration = Duration::from_millis(300);
/// Failures in a row that may pass by themselves, as when somebody writes to the file: the last of them is told.
pub(super) const MISSES_MAX: u32 = 3;
/// After this a set that is only asked when it is invalidated tries again after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// See the [module](self).
pub(super) struct Table {
    sets: HashMap<GroupName, Set>,
    sets_max: usize,
    /// The sets that wait for their time; each is in here once at most.
    due: BTreeSet<(Instant, GroupName)>,
    by_source: BTreeMap<String, Load>,
    began: Instant,
}

/// What the sets of one source do.
#[derive(Default)]
struct Load {
    room: usize,
    running: usize,
    /// Sets that are due, in the order in which they became so.
    waiting: VecDeque<GroupName>,
}

struct Set {
    question: Arc<Question>,
    state: State,
    told: Told,
    /// It was invalidated while it ran: what comes of that run may be older.
    again: bool,
    /// It was due while nobody was in: who comes has it asked.
    stale: bool,
    /// When it was meant to run last, and when it did.
    planned: Instant,
    started: Instant,
    empty_since: Option<Instant>,
}

/// What the members of a set's group were told, and a newcomer is.
#[derive(Clone, Default)]
pub(super) struct Told {
    pub(super) known: Option<Arc<Known>>,
    /// The last run has failed.
    pub(super) failed: Option<Arc<Failed>>,
    /// The layer did not take the last message: the next is a snapshot.
    pub(super) untold: bool,
    /// Runs in a row that failed in a way that may pass by itself.
    pub(super) misses: u32,
}

/// `Idle => Waiting => Running => Idle`.
enum State {
    /// Until this time, or until somebody comes or invalidates it.
    Idle(Option<Instant>),
    /// For room at its source.
    Waiting,
    Running,
}

/// A run that is to begin.
pub(super) struct Start {
    pub(super) question: Arc<Question>,
    pub(super) told: Told,
}

impl Table {
    pub(super) fn new(sets_max: usize, room: BTreeMap<String, usize>, now: Instant) -> Self {
        let load = |(source, room)| (source, Load { room, ..Load::default() });
        let by_source = room.into_iter().map(load).collect();
        Self { sets: HashMap::new(), sets_max, due: BTreeSet::new(), by_source, began: now }
    }

    /// Finds or makes a set for somebody who is in its group already.
    pub(super) fn join(&mut self, question: &Arc<Question>, now: Instant) -> Result<Told, Refusal> {
        if let Some(set) = self.sets.get_mut(&question.group) {
            set.empty_since = None;
            if std::mem::take(&mut set.stale) && matches!(set.state, State::Idle(_)) {
                set.put_off(&mut self.due, Some(now));
            }
            return Ok(set.told.clone());
        }
        if self.sets.len() >= self.sets_max {
            let max = self.sets_max;
            let why = format!("there are {max} live queries with different parameters, the most allowed; try later");
            return Err(Refusal::new(ErrorCode::Overloaded, why));
        }
        let mut set = Set {
            question: Arc::clone(question),
            state: State::Idle(None),
            told: Told::default(),
            again: false,
            stale: false,
            planned: now,
            started: now,
            empty_since: None,
        };
        set.put_off(&mut self.due, Some(now));
        self.sets.insert(question.group.clone(), set);
        Ok(Told::default())
    }

    /// Has every set with one of the tags asked again; says how many they are.
    pub(super) fn invalidate(&mut self, tags: &[String], now: Instant) -> u64 {
        let mut hit = 0;
        for set in self.sets.values_mut() {
            if !set.question.query.config.tags.iter().any(|tag| tags.contains(tag)) {
                continue;
            }
            hit += 1;
            match set.state {
                State::Running => set.again = true,
                State::Waiting => {}
                State::Idle(at) => {
                    let soon = now.max(set.started + APART);
                    set.put_off(&mut self.due, Some(at.map_or(soon, |at| at.min(soon))));
                }
            }
        }
        hit
    }

    /// When [`Table::start_due`] wants to be called.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes what is due and has room. Each run that is given out ends with [`Table::finish`].
    pub(super) fn start_due(&mut self, now: Instant, has_members: impl Fn(&GroupName) -> bool) -> Vec<Start> {
        while let Some((at, group)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, group));
                break;
            }
            let Some(set) = self.sets.get_mut(&group) else { continue };
            if !has_members(&group) {
                (set.state, set.stale) = (State::Idle(None), true);
                continue;
            }
            (set.state, set.planned) = (State::Waiting, at);
            self.by_source.entry(set.question.source().to_owned()).or_default().waiting.push_back(group);
        }
        let mut starts = Vec::new();
        for load in self.by_source.values_mut() {
            while load.running < load.room
                && let Some(group) = load.waiting.pop_front()
            {
                let Some(set) = self.sets.get_mut(&group) else { continue };
                (set.state, set.started, set.again) = (State::Running, now, false);
                load.running += 1;
                starts.push(Start { question: Arc::clone(&set.question), told: set.told.clone() });
            }
        }
        starts
    }

    /// Notes what came of a run, and so what the members are about to be told. Before they are: who comes in between is told it twice, and not
    /// never.
    pub(super) fn learn(&mut self, group: &GroupName, told: Told) {
        if let Some(set) = self.sets.get_mut(group) {
            set.told = told;
        }
    }

    /// Ends a run. `told` is whether the layer took what there was to tell.
    pub(super) fn finish(&mut self, group: &GroupName, told: bool, now: Instant) {
        let Some(set) = self.sets.get_mut(group) else { return };
        if let Some(load) = self.by_source.get_mut(set.question.source()) {
            load.running -= 1;
        }
        set.told.untold = !told;
        let next = set.next(self.began, now);
        set.put_off(&mut self.due, next);
    }

    /// Forgets sets that nobody has been in for a while.
    pub(super) fn sweep(&mut self, now: Instant, has_members: impl Fn(&GroupName) -> bool) {
        let due = &mut self.due;
        self.sets.retain(|group, set| {
            let State::Idle(at) = set.state else { return true };
            if has_members(group) {
                set.empty_since = None;
                return true;
            }
            let is_over = now >= *set.empty_since.get_or_insert(now) + LINGER;
            if is_over && let Some(at) = at {
                due.remove(&(at, group.clone()));
            }
            !is_over
        });
    }

    /// The groups of all sets.
    pub(super) fn groups(&self) -> Vec<GroupName> {
        self.sets.keys().cloned().collect()
    }
}

impl Set {
    /// Lets it wait until a time, or for somebody.
    fn put_off(&mut self, due: &mut BTreeSet<(Instant, GroupName)>, until: Option<Instant>) {
        if let State::Idle(Some(at)) = self.state {
            due.remove(&(at, self.question.group.clone()));
        }
        due.extend(until.map(|at| (at, self.question.group.clone())));
        self.state = State::Idle(until);
    }

    /// When it is due after a run. Those of one `refresh` are spread over it by their phase, and stay where they are in
    /// it however long they run; what would have been meanwhile is left out.
    fn next(&mut self, began: Instant, now: Instant) -> Option<Instant> {
        if std::mem::take(&mut self.again) {
            return Some(now.max(self.started + APART));
        }
        if (1..MISSES_MAX).contains(&self.told.misses) {
            return Some(now + RETRY_SOON);
        }
        let Some(refresh) = self.question.refresh() else {
            let retry = self.told.failed.is_some() || self.told.untold;
            return retry.then(|| now + RETRY);
        };
        let earliest = now.max(self.planned + refresh / 2).duration_since(began).as_millis() as u64;
        let interval = u64::try_from(refresh.as_millis()).unwrap_or(u64::MAX).max(1);
        let phase = self.question.phase % interval;
        let intervals = (earliest + 1).saturating_sub(phase).div_ceil(interval);
        Some(began + Duration::from_millis(intervals.saturating_mul(interval).saturating_add(phase)))
    }
}
