//! Remembers answers by idempotency key, so that a repeated request does nothing again.
//!
//! Kept in memory for `MEMORY`, which is all for messages without jobs. The keys of work are kept with its jobs, by the
//! store, for a day: a repeat that is not remembered here is run, and finds its answer there.
//!
//! The memory is shared out: no client has more of it than [`Share::Client`] says, and all of them together leave half of it to
//! the team's own programs.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use groupcast_protocol::frame::Accepted;
use groupcast_protocol::{ErrorCode, Refusal};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::telemetry::Scope;

/// How long an answer is remembered.
const MEMORY: Duration = Duration::from_secs(5 * 60);
/// Keys that are remembered at once, some 300 bytes each; more are refused, since forgetting one could send a message twice.
const KEYS_MAX: usize = 100_000;
/// Those of them that are of clients.
const CLIENTS_MAX: usize = KEYS_MAX / 2;
/// Those of one client.
const CLIENT_MAX: usize = 1_000;
/// How long a repeat waits for the first one, which has deadlines of its own.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How often what is to be forgotten is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// When somebody without room is to come again.
const AGAIN: Duration = SWEEP_EVERY;

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

/// Whose keys they are: what one remembers takes nothing from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Share {
    /// The team's programs.
    Team,
    /// One client, of whoever is called so; 1,000 keys at once.
    Client(String),
}

/// The answers of this process by key. Cheap to clone; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Idempotency {
    entries: Arc<Mutex<Entries>>,
    /// Clients are known by a number: a name of any length is one, and whoever chooses names does not know which.
    numbers: RandomState,
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Name, Entry>,
    /// How many of them are of each client, and of all clients.
    of_client: HashMap<u64, usize>,
    of_clients: usize,
    /// When expired entries were last looked for.
    swept: Option<Instant>,
}

/// SHA-256 of scope and key: keys are up to 255 bytes, and what they say is nobody's business here.
type Name = [u8; 32];

#[derive(Debug)]
struct Entry {
    /// The client whose it is, by its number.
    client: Option<u64>,
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
    /// `scope` says who asks for what, so that equal keys of different routes have nothing to do with each other; `share` says
    /// whose memory it takes. A request that is refused is forgotten: its repeat is run. Dropping the call does not stop the request. `run` gets the
    /// key's digests, for the store.
    ///
    /// # Errors
    /// `idempotency_conflict` when the key came with another body, `rate_limited` when too many keys of the client are
    /// remembered, `overloaded` when too many of all are, and whatever the request itself is refused with.
    pub async fn once<F>(
        &self,
        share: &Share,
        scope: &str,
        key: &str,
        body: &[u8],
        run: impl FnOnce(KeyOf) -> F,
    ) -> Result<Accepted, Refusal>
    where
        F: Future<Output = Result<Accepted, Refusal>> + Send + 'static,
    {
        let (name, body) = (digest(&[scope.as_bytes(), &[0], key.as_bytes()]), digest(&[body]));
        let client = match share {
            Share::Team => None,
            Share::Client(who) => Some(self.numbers.hash_one(who)),
        };
        let deadline = Instant::now() + WAIT_MAX;
        let done = loop {
            match self.plan(client, name, body)? {
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
        let running = tokio::spawn(Scope::carry(async move {
            let answer = run.await;
            first.finish(answer.as_ref().ok());
            answer
        }));
        running.await.map_err(|_| Refusal::new(ErrorCode::Internal, "the request failed; the log knows more"))?
    }

    fn plan(&self, client: Option<u64>, name: Name, body: [u8; 32]) -> Result<Plan, Refusal> {
        let mut entries = self.entries.lock();
        entries.sweep(Instant::now());
        match entries.by_key.get(&name) {
            Some(entry) if entry.body != body => Err(conflict()),
            Some(Entry { state: State::Running(running), .. }) => Ok(Plan::Wait(running.clone())),
            Some(Entry { state: State::Done(accepted, _), .. }) => Ok(Plan::Answer(accepted.clone())),
            None => {
                entries.make_room(client)?;
                let (done, running) = watch::channel(());
                entries.insert(name, Entry { client, body, state: State::Running(running) });
                Ok(Plan::Run(done))
            }
        }
    }
}

impl Entries {
    /// Sees to it that there is room for one more key, if need be without the answers to messages that made jobs: the store
    /// knows those.
    fn make_room(&mut self, client: Option<u64>) -> Result<(), Refusal> {
        if self.check_room(client).is_err() {
            self.keep(|state| match state {
                State::Running(_) => true,
                State::Done(accepted, _) => accepted.jobs.is_empty(),
            });
        }
        self.check_room(client)
    }

    fn check_room(&self, client: Option<u64>) -> Result<(), Refusal> {
        let full = |code, what: &str, max: usize| {
            let why = format!("{max} idempotency keys {what} are remembered, as many as are kept; try again later");
            Err(Refusal::new(code, why).again_in(AGAIN))
        };
        if self.by_key.len() >= KEYS_MAX {
            return full(ErrorCode::Overloaded, "of all callers", KEYS_MAX);
        }
        let Some(client) = client else { return Ok(()) };
        if self.of_client.get(&client).is_some_and(|count| *count >= CLIENT_MAX) {
            return full(ErrorCode::RateLimited, "of this client", CLIENT_MAX);
        }
        if self.of_clients >= CLIENTS_MAX {
            return full(ErrorCode::Overloaded, "of clients", CLIENTS_MAX);
        }
        Ok(())
    }

    fn insert(&mut self, name: Name, entry: Entry) {
        if let Some(client) = entry.client {
            *self.of_client.entry(client).or_default() += 1;
            self.of_clients += 1;
        }
        self.by_key.insert(name, entry);
    }

    fn remove(&mut self, name: &Name) {
        let Some(client) = self.by_key.remove(name).and_then(|entry| entry.client) else { return };
        self.of_clients -= 1;
        if let Some(count) = self.of_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.of_client.remove(&client);
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        // Every entry is looked at, so not for every request.
        if self.swept.is_some_and(|swept| now < swept + SWEEP_EVERY) {
            return;
        }
        self.swept = Some(now);
        self.keep(|state| match state {
            State::Running(_) => true,
            State::Done(_, until) => now < *until,
        });
    }

    /// Forgets the others, and counts anew.
    fn keep(&mut self, wanted: impl Fn(&State) -> bool) {
        self.by_key.retain(|_, entry| wanted(&entry.state));
        self.of_client.clear();
        for client in self.by_key.values().filter_map(|entry| entry.client) {
            *self.of_client.entry(client).or_default() += 1;
        }
        self.of_clients = self.of_client.values().sum();
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
            entries.remove(&self.name);
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
        let first = keys.once(&Share::Team, "s", "k", b"body", |_| counted(&runs)).await.expect("taken");
        let second = keys.once(&Share::Team, "s", "k", b"body", |_| counted(&runs)).await.expect("taken");
        assert_eq!((first.existing, second.existing, runs.load(Ordering::Relaxed)), (false, true, 1));
        assert_eq!(first.message_id, second.message_id);
        keys.once(&Share::Team, "other", "k", b"body", |_| counted(&runs)).await.expect("another scope");
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        tokio::time::advance(MEMORY).await;
        assert!(!keys.once(&Share::Team, "s", "k", b"body", |_| counted(&runs)).await.expect("forgotten").existing);
    }

    #[tokio::test]
    async fn another_body_is_a_conflict_and_a_refused_request_may_be_repeated() {
        let (keys, runs) = (Idempotency::default(), Arc::new(AtomicU32::new(0)));
        let refuse = async { Err(Refusal::new(ErrorCode::Overloaded, "later")) };
        assert!(keys.once(&Share::Team, "s", "k", b"a", |_| refuse).await.is_err());
        keys.once(&Share::Team, "s", "k", b"b", |_| counted(&runs)).await.expect("the refused one is forgotten");
        let refusal = keys.once(&Share::Team, "s", "k", b"c", |_| counted(&runs)).await.expect_err("another body");
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
        let mut first = Box::pin(async move { first.once(&Share::Team, "s", "k", b"body", |_| gated).await });
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        drop(first);
        let mut second = Box::pin(second.once(&Share::Team, "s", "k", b"body", |_| counted(&runs)));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        go.send(()).expect("the first request still runs");
        assert!(second.await.expect("the first answer").existing);
        assert_eq!(runs.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_panic_leaves_no_trace() {
        let (keys, runs) = (Idempotency::default(), Arc::new(AtomicU32::new(0)));
        let refusal =
            keys.once(&Share::Team, "s", "k", b"body", |_| async { panic!("on purpose") }).await.expect_err("a panic");
        assert_eq!(refusal.code, ErrorCode::Internal);
        keys.once(&Share::Team, "s", "k", b"body", |_| counted(&runs)).await.expect("runs");
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_a_share_and_nobody_elses() {
        let (keys, runs) = (Idempotency::default(), Arc::new(AtomicU32::new(0)));
        let client = |n: usize| Share::Client(format!("user {n}"));
        let once = async |share: &Share, key: usize| {
            keys.once(share, "s", &format!("{share:?} {key}"), b"body", |_| counted(&runs)).await
        };
        for key in 0..CLIENT_MAX {
            once(&client(0), key).await.expect("within its share");
        }
        let refusal = once(&client(0), CLIENT_MAX).await.expect_err("over its share");
        assert_eq!(refusal.code, ErrorCode::RateLimited);
        assert!(once(&client(0), 0).await.expect("a repeat needs no room").existing);
        for other in 1..CLIENTS_MAX / CLIENT_MAX {
            for key in 0..CLIENT_MAX {
                once(&client(other), key).await.expect("another client has one of its own");
            }
        }
        assert_eq!(once(&client(1000), 0).await.expect_err("half is the team's").code, ErrorCode::Overloaded);
        once(&Share::Team, 0).await.expect("half is the team's");
        tokio::time::advance(MEMORY + SWEEP_EVERY).await;
        once(&client(0), CLIENT_MAX).await.expect("the others are forgotten");
        let entries = keys.entries.lock();
        assert_eq!((entries.by_key.len(), entries.of_client.len(), entries.of_clients), (1, 1, 1));
    }

    #[tokio::test]
    async fn what_is_refused_takes_no_share() {
        let keys = Idempotency::default();
        let refuse = async { Err(Refusal::new(ErrorCode::Overloaded, "later")) };
        assert!(keys.once(&Share::Client("a".to_owned()), "s", "k", b"a", |_| refuse).await.is_err());
        let entries = keys.entries.lock();
        assert!(entries.by_key.is_empty() && entries.of_client.is_empty() && entries.of_clients == 0);
    }
}
