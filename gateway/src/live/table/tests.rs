//! What runs, when; the time is a variable.

use super::*;
use crate::live::tests::question;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_set_runs_at_once_and_then_in_its_interval() {
    let mut it = Rig::new();
    let set = it.joins("refresh = '1s'", 1);
    assert_eq!(it.start(), set);
    it.passes(5 * SECOND);
    assert!(it.starts().is_empty(), "it still runs");
    it.ends(&set);
    let mut at = Vec::new();
    for _ in 0..3 {
        it.waits();
        assert_eq!(it.start(), set);
        at.push(it.now);
        it.passes(SECOND / 10);
        it.ends(&set);
    }
    assert_eq!([at[1] - at[0], at[2] - at[1]], [SECOND, SECOND], "however long it takes");
}

#[test]
fn sets_are_spread_over_the_interval() {
    let mut it = Rig::new();
    let sets: Vec<_> = (0..100).map(|n| it.joins("refresh = '1s'", n)).collect();
    assert_eq!(it.starts().len(), 100);
    sets.iter().for_each(|set| it.ends(set));
    it.passes(2 * SECOND);
    it.starts();
    sets.iter().for_each(|set| it.ends(set));
    let (mut quarters, began) = ([0; 4], it.now);
    while it.table.next_due().is_some_and(|due| due < began + SECOND) {
        it.waits();
        let starts = it.starts();
        quarters[(it.now - began).as_millis() as usize / 250] += starts.len();
        assert!(starts.len() <= 5, "few at a time");
    }
    assert_eq!(quarters.iter().sum::<usize>(), 100);
    assert!(quarters.iter().all(|sets| *sets >= 10), "{quarters:?}");
}

#[test]
fn any_number_of_invalidations_is_one_more_run() {
    let mut it = Rig::new();
    let set = it.joins("tags = ['t']", 1);
    assert_eq!(it.start(), set);
    assert_eq!((it.invalidates("t"), it.invalidates("t"), it.invalidates("u")), (1, 1, 0));
    it.ends(&set);
    it.waits();
    assert_eq!(it.start(), set);
    it.ends(&set);
    assert_eq!(it.table.next_due(), None, "and then none");
    assert_eq!((it.invalidates("t"), it.invalidates("t")), (1, 1));
    it.waits();
    assert_eq!(it.start(), set);
    it.ends(&set);
    assert_eq!(it.table.next_due(), None);
}

#[test]
fn invalidations_do_not_make_a_set_run_without_a_pause() {
    let mut it = Rig::new();
    let set = it.joins("tags = ['t']", 1);
    let began = it.now;
    for _ in 0..10 {
        assert_eq!(it.start(), set);
        it.invalidates("t");
        it.ends(&set);
        it.waits();
    }
    assert_eq!(it.now - began, 10 * APART);
    it.passes(SECOND);
    it.starts();
    it.ends(&set);
    it.passes(SECOND);
    it.invalidates("t");
    assert_eq!(it.table.next_due(), Some(it.now), "after a pause at once");
}

#[test]
fn a_set_that_nobody_is_in_does_not_run_until_somebody_comes() {
    let mut it = Rig::new();
    let set = it.joins("refresh = '1s'\ntags = ['t']", 1);
    it.starts();
    it.ends(&set);
    it.members = 0;
    it.waits();
    assert!(it.starts().is_empty());
    assert_eq!(it.table.next_due(), None);
    it.invalidates("t");
    it.waits();
    assert!(it.starts().is_empty());
    it.joins("refresh = '1s'\ntags = ['t']", 1);
    assert_eq!(it.starts(), [set], "what he is told may be old");
}

#[test]
fn a_set_is_forgotten_when_nobody_has_been_in_for_long() {
    let mut it = Rig::new();
    let set = it.joins("refresh = '1h'", 1);
    it.starts();
    it.ends(&set);
    it.members = 0;
    it.sweeps();
    it.passes(LINGER - SECOND);
    it.sweeps();
    it.members = 1;
    it.joins("refresh = '1h'", 1);
    it.sweeps();
    it.members = 0;
    it.sweeps();
    it.passes(LINGER - SECOND);
    it.sweeps();
    assert_eq!(it.table.groups(), [set], "he was there in between");
    it.passes(SECOND);
    it.sweeps();
    assert!(it.table.groups().is_empty());
    assert_eq!(it.table.next_due(), None);
}

#[test]
fn sets_take_turns_at_a_source() {
    let mut it = Rig::with(10, 2);
    let sets: Vec<_> = (0..5).map(|n| it.joins("tags = ['t']", n)).collect();
    let mut ran = it.starts();
    assert_eq!(ran.len(), 2);
    for at in 0..5 {
        assert!(it.starts().is_empty(), "there is room for two");
        it.ends(&ran[at].clone());
        ran.extend(it.starts());
    }
    ran.sort();
    let mut all = sets;
    all.sort();
    assert_eq!(ran, all);
}

#[test]
fn the_number_of_sets_is_bounded() {
    let mut it = Rig::with(2, 10);
    it.joins("tags = ['t']", 1);
    it.joins("tags = ['t']", 2);
    it.joins("tags = ['t']", 1);
    let refused = it.table.join(&ask("tags = ['t']", 3), it.now).err().expect("one too many");
    assert_eq!(refused.code, ErrorCode::Overloaded);
}

#[test]
fn what_fails_is_tried_again() {
    let mut it = Rig::new();
    let set = it.joins("tags = ['t']", 1);
    it.starts();
    let failed = Failed { code: "c".into(), message: "m".into() };
    it.table.learn(&set, Told { failed: Some(Arc::new(failed)), ..Told::default() });
    it.ends(&set);
    let now = it.now;
    it.waits();
    assert_eq!((it.now - now, it.starts()), (RETRY, vec![set.clone()]));
    it.table.learn(&set, Told { misses: 1, ..Told::default() });
    it.ends(&set);
    assert_eq!(it.table.next_due(), Some(it.now + RETRY_SOON));
    it.waits();
    assert_eq!(it.start(), set);
    it.table.learn(&set, Told::default());
    it.table.finish(&set, false, it.now);
    assert!(it.table.next_due().is_some(), "nobody has heard of it");
}

/// A table of one source, and the time.
struct Rig {
    table: Table,
    now: Instant,
    members: u64,
}

impl Rig {
    fn new() -> Self {
        Self::with(1000, 1000)
    }

    fn with(sets_max: usize, room: usize) -> Self {
        let now = Instant::now();
        Self { table: Table::new(sets_max, [("demo".to_owned(), room)].into(), now), now, members: 1 }
    }

    fn joins(&mut self, config: &str, n: u64) -> GroupName {
        self.members = 1;
        let question = ask(config, n);
        self.table.join(&question, self.now).expect("there is room");
        question.group.clone()
    }

    fn invalidates(&mut self, tag: &str) -> u64 {
        self.table.invalidate(&[tag.to_owned()], self.now)
    }

    fn starts(&mut self) -> Vec<GroupName> {
        let members = self.members;
        let starts = self.table.start_due(self.now, |_| members > 0);
        starts.iter().map(|start| start.question.group.clone()).collect()
    }

    /// The only one that starts.
    fn start(&mut self) -> GroupName {
        let mut starts = self.starts();
        assert_eq!(starts.len(), 1, "{starts:?}");
        starts.remove(0)
    }

    fn ends(&mut self, group: &GroupName) {
        self.table.finish(group, true, self.now);
    }

    fn sweeps(&mut self) {
        let members = self.members;
        self.table.sweep(self.now, |_| members > 0);
    }

    fn passes(&mut self, time: Duration) {
        self.now += time;
    }

    /// Until something is due.
    fn waits(&mut self) {
        self.now = self.now.max(self.table.next_due().expect("something will be due"));
    }
}

/// The same query with another parameter.
fn ask(config: &str, n: u64) -> Arc<Question> {
    question(&format!("{config}\nparams.n = {{ type = 'integer' }}"), &format!(r#"{{"n":{n}}}"#)).expect("live")
}
