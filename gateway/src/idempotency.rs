//! Remembers answers by idempotency key, so that a repeated request does nothing again.
//!
//! Kept in memory for `MEMORY`, which is all for messages without jobs. The keys of work are kept with its jobs, by the
//! store, for a day: a repeat that is not remembered here is run, and finds its answer there.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use groupcast_protocol::frame::Accepted;
use groupcast_protocol::{ErrorCode, Refusal};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long an answer is remembered.
const MEMORY: Duration = Duration::from_secs(5 * 60);
/// Keys that are remembered at once, some 300 bytes each; more are refused, since forgetting one could send a message twice.
const KEYS_MAX: usize = 100_000;
/// How long a repeat waits for the first one, which has deadlines of its own.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A key and its request, as digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyOf {
    /// Who asks for what, and the key.
    pub name: [u8; 32],
    /// The body.
    pub body: [u8; 32],
}

impl KeyOf {
    /// The key of a message of another program, which bears an id of its own.
    pub(crate) fn foreign(group: &str, id: &[u8], body: &[u8]) -> Self {
        let name = Sha256::new().chain_update(b"foreign ").chain_update(group).chain_update(b" ").chain_update(id);
        Self { name: name.finalize().into(), body: Sha256::digest(body).into() }
    }
}

/// The answers of this process by key. Cheap to clone; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Idempotency {
    entries: Arc<Mutex<Entries>>,
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Name, Entry>,
    /// When expired entries were last looked for.
    swept: Option<Instant>,
}

/// SHA-256 of scope and key: keys are up to 255 bytes, and what they say is nobody's business here.
type Name = [u8; 32];

#[derive(Debug)]
struct Entry {
    body: [u8; 32],
    state: State,
}

#[derive(Debug)]
enum State {
    /// The first request is under way; the other end closes when it is through.
    Running(watch::Receiver<()>),
    Done(Box<Accepted>, Instant),
}

/// What is to be done about a request.
enum Plan {
    /// It is the first.
    Run(watch::Sender<()>),
    /// The first is under way.
    Wait(watch::Receiver<()>),
    /// The first is through.
    Answer(Box<Accepted>),
}

impl Idempotency {
    /// Runs a request unless one with the same key has been run: then its answer is given, with `existing` set.
    ///
    /// `scope` says who asks for what, so that equal keys of different routes have nothing to do with each other. A
    /// request that is refused is forgotten: its repeat is run. Dropping the call does not stop the request. `run` gets the
    /// key's digests, for the store.
    ///
    /// # Errors
    /// `idempotency_conflict` when the key came with another body, `overloaded` when too many keys are remembered,
    /// and whatever the request itself is refused with.
    pub async fn once<F>(
        &self,
        scope: &str,
        key: &str,
        body: &[u8],
        run: impl FnOnce(KeyOf) -> F,
    ) -> Result<Accepted, Refusal>
    where
        F: Future<Output = Result<Accepted, Refusal>> + Send + 'static,
    {
        let (name, body) = (digest(&[scope.as_bytes(), &[0], key.as_bytes()]), digest(&[body]));
        let deadline = Instant::now() + WAIT_MAX;
        let done = loop {
            match self.plan(name, body)? {
                Plan::Run(done) => break done,
                Plan::Answer(accepted) => return Ok(repeated(*accepted)),
                Plan::Wait(mut running) => {
                    // An error says that the first request is through, one way or the other.
                    let late =
                        |_| Refusal::new(ErrorCode::Unavailable, "the first request with this key is still under way");
                    let _ = timeout_at(deadline, running.changed()).await.map_err(late)?;
                }
            }
        };
        // On a task of its own: a client that hangs up must not leave it open whether its request was run.
        let first = First { entries: self.entries.clone(), name, _done: done };
        let run = run(KeyOf { name, body });
        let running = tokio::spawn(async move {
            let answer = run.await;
            first.finish(answer.as_ref().ok());
            answer
        });
        running.await.map_err(|_| Refusal::new(ErrorCode::Internal, "the request failed; the log knows more"))?
    }

    fn plan(&self, name: Name, body: [u8; 32]) -> Result<Plan, Refusal> {
        let mut entries = self.entries.lock();
        entries.sweep(Instant::now());
        let full = !entries.by_key.contains_key(&name) && entries.is_full();
        match entries.by_key.get(&name) {
            Some(entry) if entry.body != body => Err(conflict()),
            Some(Entry { state: State::Running(running), .. }) => Ok(Plan::Wait(running.clone())),
            Some(Entry { state: State::Done(accepted, _), .. }) => Ok(Plan::Answer(accepted.clone())),
            None if full => Err(Refusal::new(
                ErrorCode::Overloaded,
                format!("{KEYS_MAX} idempotency keys are remembered, as many as are kept; try again later"),
            )),
            None => {
                let (done, running) = watch::channel(());
                entries.by_key.insert(name, Entry { body, state: State::Running(running) });
                Ok(Plan::Run(done))
            }
        }
    }
}

impl Entries {
    /// Whether there is no room for a key, even without the answers to messages that made jobs: the store knows those.
    fn is_full(&mut self) -> bool {
        if self.by_key.len() >= KEYS_MAX {
            self.by_key.retain(|_, entry| match &entry.state {
                State::Running(_) => true,
                State::Done(accepted, _) => accepted.jobs.is_empty(),
            });
        }
        self.by_key.len() >= KEYS_MAX
    }

    fn sweep(&mut self, now: Instant) {
        // Every entry is looked at, so not for every request.
        if self.swept.is_some_and(|swept| now < swept + Duration::from_secs(10)) {
            return;
        }
        self.swept = Some(now);
        self.by_key.retain(|_, entry| match &entry.state {
            State::Running(_) => true,
            State::Done(_, until) => now < *until,
        });
    }
}

/// The first request with a key. Dropped without an end (a panic, the end of the process), it is forgotten.
struct First {
    entries: Arc<Mutex<Entries>>,
    name: Name,
    /// Dropped last, when the entry says how it ended: wakes who waits.
    _done: watch::Sender<()>,
}

impl First {
    fn finish(self, accepted: Option<&Accepted>) {
        let Some(accepted) = accepted else { return };
        if let Some(entry) = self.entries.lock().by_key.get_mut(&self.name) {
            entry.state = State::Done(Box::new(accepted.clone()), Instant::now() + MEMORY);
        }
    }
}

impl Drop for First {
    fn drop(&mut self) {
        let mut entries = self.entries.lock();
        if let Some(Entry { state: State::Running(_), .. }) = entries.by_key.get(&self.name) {
            entries.by_key.remove(&self.name);
        }
    }
}

/// What a key is refused with that came with another body.
pub(crate) fn conflict() -> Refusal {
    let message = "this idempotency key was used for another body; use a fresh key for a new request";
    Refusal::new(ErrorCode::IdempotencyConflict, message)
}

/// The answer to a repeat.
pub(crate) fn repeated(mut accepted: Accepted) -> Accepted {
    accepted.existing = true;
    accepted.jobs.iter_mut().for_each(|job| job.existing = true);
    accepted
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use groupcast_protocol::{GroupName, Id};
    use tokio::sync::oneshot;

    use super::*;

    fn answer() -> Accepted {
        let group = Some(GroupName::parse("g").expect("a good name"));
        let (members, jobs) = (Some(1), Vec::new());
        Accepted { message_id: Id::new(1, 1), group, members, existing: false, jobs, offset: None, epoch: None }
    }

    fn counted(runs: &Arc<AtomicU32>) -> impl Future<Output = Result<Accepted, Refusal>> + Send + 'static {
        let runs = runs.clone();
        async move {
            runs.fetch_add(1, Ordering::Relaxed);
            Ok(answer())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeat_gets_the_first_answer_until_it_is_forgotten() {
        let (keys, runs) = (Idempotency::default(), Arc::new(AtomicU32::new(0)));
        let first = keys.once("s", "k", b"body", |_| counted(&runs)).await.expect("taken");
        let second = keys.once("s", "k", b"body", |_| counted(&runs)).await.expect("taken");
        assert_eq!((first.existing, second.existing, runs.load(Ordering::Relaxed)), (false, true, 1));
        assert_eq!(first.message_id, second.message_id);
        keys.once("other", "k", b"body", |_| counted(&runs)).await.expect("another scope");
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        tokio::time::advance(MEMORY).await;
        assert!(!keys.once("s", "k", b"body", |_| counted(&runs)).await.expect("forgotten").existing);
    }

    #[tokio::test]
    async fn another_body_is_a_conflict_and_a_refused_request_may_be_repeated() {
        let (keys, runs) = (Idempotency::default(), Arc::new(AtomicU32::new(0)));
        let refuse = async { Err(Refusal::new(ErrorCode::Overloaded, "later")) };
        assert!(keys.once("s", "k", b"a", |_| refuse).await.is_err());
        keys.once("s", "k", b"b", |_| counted(&runs)).await.expect("the refused one is forgotten");
        let refusal = keys.once("s", "k", b"c", |_| counted(&runs)).await.expect_err("another body");
        assert_eq!((refusal.code, runs.load(Ordering::Relaxed)), (ErrorCode::IdempotencyConflict, 1));
    }

    #[tokio::test]
    async fn a_repeat_waits_for_one_that_is_under_way_even_if_its_client_left() {
        let (keys, runs) = (Idempotency::default(), Arc::new(AtomicU32::new(0)));
        let (go, gate) = oneshot::channel::<()>();
        let gated = async move {
            gate.await.expect("the test opens the gate");
            Ok(answer())
        };
        let (first, second) = (keys.clone(), keys.clone());
        let mut first = Box::pin(async move { first.once("s", "k", b"body", |_| gated).await });
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        drop(first);
        let mut second = Box::pin(second.once("s", "k", b"body", |_| counted(&runs)));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        go.send(()).expect("the first request still runs");
        assert!(second.await.expect("the first answer").existing);
        assert_eq!(runs.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_panic_leaves_no_trace() {
        let (keys, runs) = (Idempotency::default(), Arc::new(AtomicU32::new(0)));
        let refusal = keys.once("s", "k", b"body", |_| async { panic!("on purpose") }).await.expect_err("a panic");
        assert_eq!(refusal.code, ErrorCode::Internal);
        keys.once("s", "k", b"body", |_| counted(&runs)).await.expect("runs");
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }
}
