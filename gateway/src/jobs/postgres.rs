//! `PostgresQueue`: jobs on a PostgreSQL server, shared by several processes.
//!
//! Claims skip what another process has locked, leases go by the server's clock, and enqueues and ends that wait
//! together are committed together. What a commit waits for: at `disk` the server's disk and its synchronous standbys; at
//! `os`, and for claims, the server's disk (there is no level between that and nothing, and a claim that a crash of the
//! server forgot would let two attempts have one token). Heartbeats and progress wait for nothing.
//!
//! Reading order: this file, `db` (transactions), `group`, `ops`, `keys`, `rows`, `hints` and `presence` (between processes),
//! `schema`.

mod carrier;
mod db;
mod group;
mod hints;
mod keys;
mod letters;
mod ops;
mod pauses;
mod presence;
mod rows;
mod schema;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod ticks;

#[cfg(feature = "fuzzing")]
pub(crate) use self::carrier::read_carried;
pub(crate) use self::db::{Db, Failed, Sync, Time, Tx, int, uint};
#[cfg(feature = "fuzzing")]
pub(crate) use self::hints::reread_hint;
pub(crate) use self::rows::Uuid;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use groupcast_protocol::JobId;
use parking_lot::Mutex;
use tokio_postgres::types::ToSql;

use self::carrier::Carrier;
use self::group::Group;
use self::hints::{Hint, Hints};
use self::keys::Ask;
use self::ops::Room;
use self::rows::{columns, state_code};
use super::carried::Carried;
use super::counters::Counters;
use super::error::{JobsError, OpenError};
use super::new_job::{Enqueued, NewJob};
use super::once::{Once, Told};
use super::queue::{
    Answer, CancelOutcome, Capabilities, ClaimAsk, ClaimBatch, DeadLetters, Depth, Filter, Finish, Finished, Lease,
    LeaseState, RedriveFilter, Sent, Settled, Tick, WorkQueue,
};
use super::record::{JobRecord, Progress};
use super::results::ResultKey;
use super::time::SystemClock;
use super::watch::Watch;
use crate::config::consumer::Durability;
use crate::postgres::Address;

/// Connections of a process: a few transactions at once, beside the two that enqueue and end.
const CONNECTIONS: usize = 8;

/// Jobs that wait are counted this often where there is room for many more, so that several processes together may exceed
/// `max_queued` by what they store in this time.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// A store that is so full (a tenth of the bound is left) is counted for every transaction.
const NEARLY_FULL: u64 = 10;

/// Where and as whom.
pub(crate) struct Place {
    /// The server.
    pub(crate) address: Address,
    /// The schema of its tables.
    pub(crate) schema: String,
    /// The name of this process.
    pub(crate) node: String,
    /// If it tells those who asked: the lease. After two of them without a sign of life another process takes over.
    pub(crate) tells: Option<Duration>,
    /// What its jobs are to survive, at most.
    pub(crate) durability: Durability,
}

/// Jobs in a schema of a PostgreSQL database.
pub(crate) struct PostgresQueue {
    db: Db,
    node: Arc<str>,
    hints: Hints,
    carrier: Carrier,
    /// Whether another process has this one's name.
    is_twice: Arc<AtomicBool>,
    counters: Arc<Counters>,
    enqueues: Group<Ask, Told>,
    ends: Group<Finish, Finished>,
    max_queued: u64,
}

impl PostgresQueue {
    /// Connects, brings the layout up to date, and hears hints from then on.
    ///
    /// # Errors
    /// When the server cannot be reached, or does not do as it is told.
    pub(crate) async fn open(
        place: Place,
        time: Time,
        counters: Arc<Counters>,
        max_queued: u64,
        watch: Arc<Watch>,
    ) -> Result<Self, OpenError> {
        let Place { address, schema, node, tells, durability } = place;
        let db = Db::new(&address, &schema, CONNECTIONS, time)?;
        keeps(&db, &address, durability).await?;
        schema::migrate(&db, &address.shown(), &schema).await?;
        let channel = hints::channel_of(&schema);
        hints::listen(&db, address, channel.clone(), node.clone(), Arc::clone(&watch));
        let hints = Hints::start(&db, &channel);
        let carrier = Carrier::start(&db, &channel);
        let node: Arc<str> = node.into();
        let is_twice = tells.map(|lease| presence::start(&db, Arc::clone(&node), lease, watch)).unwrap_or_default();
        let enqueues = Group::start(&db, Arc::clone(&counters), enqueuer(&db, &node, max_queued));
        let ends = Group::start(&db, Arc::clone(&counters), finisher(&db, &node, &hints));
        Ok(Self { db, node, hints, carrier, is_twice, counters, enqueues, ends, max_queued })
    }

    async fn ask(&self, ask: Ask) -> Result<Told, JobsError> {
        let sync = sync_for(ask.jobs.iter().map(|job| job.durability));
        let told = self.enqueues.call(sync, vec![ask]).await?.pop().ok_or(JobsError::TimedOut)?;
        if let Told::Stored(jobs) = &told {
            self.counters.enqueued.add(jobs.iter().filter(|one| !one.existing).count());
            self.hints.give(jobs.iter().filter(|one| !one.existing).map(|one| Hint::Work(one.consumer.clone())));
        }
        Ok(told)
    }

    /// The transactions, for the store of results beside this one.
    pub(crate) fn db(&self) -> &Db {
        &self.db
    }
}

/// Whether the server can be reached, and keeps jobs that are to survive so much. Changes nothing there.
///
/// # Errors
/// When it cannot, or does not.
pub(crate) async fn look(address: &Address, durability: Durability) -> Result<(), OpenError> {
    let db = Db::new(address, "public", 1, Time::Server(Arc::new(SystemClock::new())))?;
    let kept = keeps(&db, address, durability).await;
    db.close().await;
    kept
}

async fn keeps(db: &Db, address: &Address, durability: Durability) -> Result<(), OpenError> {
    let kept = db.transact(Sync::Off, move |tx| async move { Ok(tx.keeps(durability)) }.boxed());
    let unreachable = |source| OpenError::Postgres { address: address.shown(), source: Arc::new(source) };
    match kept.await.map_err(unreachable)? {
        Err(JobsError::NotDurable { setting }) => Err(OpenError::NotDurable { address: address.shown(), setting }),
        kept => kept.map_err(unreachable),
    }
}

/// What is known of how many jobs wait, without counting them each time.
#[derive(Clone, Copy)]
struct Known {
    waiting: u64,
    counted: Option<Instant>,
}

impl Known {
    fn room(self, jobs: u64, max: u64) -> Room {
        let is_fresh = self.counted.is_some_and(|at| at.elapsed() < COUNT_EVERY);
        let fits = self.waiting.saturating_add(jobs) < max - max / NEARLY_FULL;
        if is_fresh && fits { Room::Enough } else { Room::Counted { max } }
    }
}

fn enqueuer(db: &Db, node: &Arc<str>, max: u64) -> group::Act<Ask, Told> {
    let (db, node) = (db.clone(), Arc::clone(node));
    let known = Arc::new(Mutex::new(Known { waiting: 0, counted: None }));
    Box::new(move |sync, calls| {
        let (db, node, known) = (db.clone(), Arc::clone(&node), Arc::clone(&known));
        async move {
            // Each call is one ask.
            let asks: Arc<Vec<Ask>> = Arc::new(calls.iter().flatten().cloned().collect());
            let jobs = asks.iter().map(|ask| ask.jobs.len() as u64).sum();
            let room = known.lock().room(jobs, max);
            let stored = db.transact(sync, move |tx| {
                let (asks, node) = (Arc::clone(&asks), Arc::clone(&node));
                async move { keys::enqueue(tx, &asks, room, &node).await }.boxed()
            });
            let stored = stored.await?;
            let mut known = known.lock();
            if let Some(counted) = stored.counted {
                *known = Known { waiting: counted, counted: Some(Instant::now()) };
            }
            known.waiting += stored.added;
            Ok(stored.told.into_iter().map(|told| Ok(vec![told?])).collect())
        }
        .boxed()
    })
}

fn finisher(db: &Db, node: &Arc<str>, hints: &Hints) -> group::Act<Finish, Finished> {
    let (db, node, hints) = (db.clone(), Arc::clone(node), hints.clone());
    Box::new(move |sync, calls| {
        let (db, node, hints) = (db.clone(), Arc::clone(&node), hints.clone());
        async move {
            let ends: Arc<Vec<Finish>> = Arc::new(calls.iter().flatten().cloned().collect());
            let ended = db.transact(sync, move |tx| {
                let (ends, node) = (Arc::clone(&ends), Arc::clone(&node));
                async move { ops::finish(tx, &ends, &node).await }.boxed()
            });
            let (told, ended) = ended.await?;
            hints.give(ended);
            let mut told = told.into_iter();
            let told: group::Told<Finished> =
                Ok(calls.iter().map(|ends| Ok(told.by_ref().take(ends.len()).collect())).collect());
            told
        }
        .boxed()
    })
}

impl WorkQueue for PostgresQueue {
    fn enqueue(&self, jobs: Vec<NewJob>) -> Answer<'_, Vec<Enqueued>> {
        async move {
            match self.ask(Ask { once: None, jobs }).await? {
                Told::Stored(jobs) | Told::Repeated { jobs, .. } => Ok(jobs),
                Told::Conflict => Ok(Vec::new()),
            }
        }
        .boxed()
    }

    fn enqueue_once(&self, once: Once, jobs: Vec<NewJob>) -> Answer<'_, Told> {
        self.ask(Ask { once: Some(once), jobs }).boxed()
    }

    fn recall(&self, name: [u8; 32], body: [u8; 32]) -> Answer<'_, Option<Told>> {
        self.db.transact(Sync::Off, move |tx| async move { keys::recall(tx, name, body).await }.boxed()).boxed()
    }

    fn tick(&self, tick: Tick, jobs: Vec<NewJob>) -> Answer<'_, Option<Vec<Enqueued>>> {
        let sync = sync_for(jobs.iter().map(|job| job.durability));
        let (asked, max, node) = (Arc::new((tick, jobs)), self.max_queued, Arc::clone(&self.node));
        let told = self.db.transact(sync, move |tx| {
            let (asked, node) = (Arc::clone(&asked), Arc::clone(&node));
            async move { ticks::tick(tx, &asked.0, &asked.1, max, &node).await }.boxed()
        });
        async move {
            let told = told.await?;
            let fresh = || told.iter().flatten().filter(|one| !one.existing);
            self.counters.enqueued.add(fresh().count());
            self.hints.give(fresh().map(|one| Hint::Work(one.consumer.clone())));
            Ok(told)
        }
        .boxed()
    }

    fn ticks(&self) -> Answer<'_, Vec<Tick>> {
        self.db.transact(Sync::Off, |tx| async move { ticks::ticks(tx).await }.boxed()).boxed()
    }

    fn has_room(&self, jobs: usize) -> Answer<'_, ()> {
        let limit = self.max_queued;
        let counted = self.db.transact(Sync::Off, |tx| async move { ops::waiting(tx).await }.boxed());
        async move {
            let is_full = counted.await? + jobs as u64 > limit;
            if is_full { Err(JobsError::QueueFull { limit }) } else { Ok(()) }
        }
        .boxed()
    }

    fn claim(&self, ask: ClaimAsk) -> Answer<'_, ClaimBatch> {
        let node = Arc::clone(&self.node);
        let claimed = self.db.transact(Sync::Local, move |tx| {
            let (ask, node) = (ask.clone(), Arc::clone(&node));
            async move { ops::claim(tx, &ask, &node).await }.boxed()
        });
        async move {
            let claimed = claimed.await?;
            self.hints.give(claimed.ended);
            self.counters.claimed.add(claimed.value.jobs.len());
            Ok(claimed.value)
        }
        .boxed()
    }

    fn tidy(&self, held: Vec<Lease>) -> Answer<'_, bool> {
        let tidied = self.db.transact(Sync::Local, move |tx| {
            let held = held.clone();
            async move { ops::tidy(tx, &held).await }.boxed()
        });
        async move {
            let tidied = tidied.await?;
            self.hints.give(tidied.ended);
            Ok(tidied.value)
        }
        .boxed()
    }

    fn extend(&self, leases: Vec<Lease>, by: Duration) -> Answer<'_, Vec<LeaseState>> {
        self.db
            .transact(Sync::Off, move |tx| {
                let leases = leases.clone();
                async move { ops::extend(tx, &leases, by).await }.boxed()
            })
            .boxed()
    }

    fn progress(&self, notes: Vec<(Lease, Progress)>) -> Answer<'_, Vec<LeaseState>> {
        self.db
            .transact(Sync::Off, move |tx| {
                let notes = notes.clone();
                async move { ops::progress(tx, &notes).await }.boxed()
            })
            .boxed()
    }

    fn carry(&self, to: &str, carried: Carried) {
        self.carrier.give(to, carried);
    }

    fn finish(&self, ends: Vec<Finish>) -> Answer<'_, Vec<Finished>> {
        let sync = sync_for(ends.iter().map(|end| end.lease.durability));
        async move {
            let told = self.ends.call(sync, ends).await?;
            told.iter().for_each(|one| self.counters.finished(one));
            Ok(told)
        }
        .boxed()
    }

    fn cancel(&self, ids: Vec<JobId>) -> Answer<'_, Vec<CancelOutcome>> {
        let cancelled = self.db.transact(Sync::Disk, move |tx| {
            let ids = ids.clone();
            async move { ops::cancel(tx, &ids).await }.boxed()
        });
        async move {
            let (told, hints) = cancelled.await?;
            self.hints.give(hints);
            Ok(told)
        }
        .boxed()
    }

    fn get(&self, ids: Vec<JobId>) -> Answer<'_, Vec<Option<JobRecord>>> {
        let sql = concat!("select ", columns!(), " from job where id = any($1)");
        let wanted: Vec<Uuid> = ids.iter().map(|id| Uuid(*id)).collect();
        let found = self.db.read(sql, vec![Box::new(wanted)]);
        async move {
            let records = records(&found.await?)?;
            let find = |id| records.iter().find(|record| record.id == id).cloned();
            Ok(ids.into_iter().map(find).collect())
        }
        .boxed()
    }

    fn list(&self, filter: Filter, after: Option<JobId>, limit: usize) -> Answer<'_, Vec<JobRecord>> {
        // The range of states repeats what the state implies, so that a partial index can be used.
        let state = filter.state.map(|state| {
            let range = if state.is_ended() { "state > 2" } else { "state < 3" };
            format!(" and state = {} and {range}", state_code(state))
        });
        let consumer = if filter.consumer.is_some() { " and consumer = $3" } else { "" };
        let reason = match (&filter.reason, &filter.consumer) {
            (None, _) => "",
            (Some(_), None) => " and (error_code = $3 or error_class = $3)",
            (Some(_), Some(_)) => " and (error_code = $4 or error_class = $4)",
        };
        let sql = format!(
            "select {} from job where id < $1{}{consumer}{reason} order by id desc limit $2",
            columns!(),
            state.unwrap_or_default()
        );
        let after = Uuid(after.unwrap_or(JobId::from_bytes([0xFF; 16])));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut values: Vec<Box<dyn ToSql + Send + std::marker::Sync>> = vec![Box::new(after), Box::new(limit)];
        values.extend(filter.consumer.map(|consumer| Box::new(consumer) as _));
        values.extend(filter.reason.map(|reason| Box::new(reason) as _));
        let found = self.db.read(sql, values);
        async move { records(&found.await?) }.boxed()
    }

    fn redrive(&self, filter: RedriveFilter) -> Answer<'_, Vec<String>> {
        let dry_run = filter.dry_run;
        let redriven = self.db.transact(Sync::Disk, move |tx| {
            let filter = filter.clone();
            async move { ops::redrive(tx, &filter).await }.boxed()
        });
        async move {
            let consumers = redriven.await?;
            self.hints.give(consumers.iter().filter(|_| !dry_run).cloned().map(Hint::Work));
            Ok(consumers)
        }
        .boxed()
    }

    fn events_pending(&self, limit: usize) -> Answer<'_, Vec<Settled>> {
        let sql = concat!("select ", columns!(), " from job where event_pending and origin = $1 order by seq limit $2");
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found = self.db.read(sql, vec![Box::new(self.node.to_string()), Box::new(limit)]);
        let node = Arc::clone(&self.node);
        async move {
            let kept = rows::read_all(&found.await?)?;
            Ok(kept.iter().map(|kept| ops::settled(kept, &node)).collect())
        }
        .boxed()
    }

    fn event_sent(&self, sent: Vec<Sent>) -> Answer<'_, ()> {
        self.db
            .transact(Sync::Off, move |tx| {
                let sent = sent.clone();
                async move { ops::event_sent(tx, &sent).await }.boxed()
            })
            .boxed()
    }

    fn refers_to(&self, keys: Vec<ResultKey>) -> Answer<'_, Vec<bool>> {
        self.db
            .transact(Sync::Off, move |tx| {
                let keys = keys.clone();
                async move { ops::refers_to(tx, &keys).await }.boxed()
            })
            .boxed()
    }

    fn result_of(&self, id: JobId) -> Answer<'_, Option<(JobRecord, Option<ResultKey>)>> {
        let sql = concat!("select ", columns!(), " from job where id = $1");
        let found = self.db.read(sql, vec![Box::new(Uuid(id))]);
        async move {
            let kept = rows::read_all(&found.await?)?.pop();
            Ok(kept.map(|kept| (kept.row.record(), kept.row.result_key())))
        }
        .boxed()
    }

    fn prune(&self, ended_before_ms: u64, limit: usize) -> Answer<'_, u64> {
        self.db
            .transact(Sync::Off, move |tx| async move { ops::prune(tx, ended_before_ms, limit).await }.boxed())
            .boxed()
    }

    fn depths(&self) -> Answer<'_, Vec<Depth>> {
        self.db.transact(Sync::Off, |tx| async move { ops::depths(tx).await }.boxed()).boxed()
    }

    fn pause(&self, consumers: Vec<String>) -> Answer<'_, ()> {
        self.db
            .transact(Sync::Disk, move |tx| {
                let consumers = consumers.clone();
                async move { pauses::pause(tx, &consumers).await }.boxed()
            })
            .boxed()
    }

    fn resume(&self, consumers: Vec<String>) -> Answer<'_, ()> {
        let names = consumers.clone();
        let resumed = self.db.transact(Sync::Disk, move |tx| {
            let consumers = names.clone();
            async move { pauses::resume(tx, &consumers).await }.boxed()
        });
        async move {
            resumed.await?;
            self.hints.give(consumers.into_iter().map(Hint::Work));
            Ok(())
        }
        .boxed()
    }

    fn paused(&self) -> Answer<'_, Vec<String>> {
        self.db.transact(Sync::Off, |tx| async move { pauses::paused(tx).await }.boxed()).boxed()
    }

    fn dead_letters(&self, limit: usize) -> Answer<'_, Vec<DeadLetters>> {
        self.db.transact(Sync::Off, move |tx| async move { letters::dead_letters(tx, limit).await }.boxed()).boxed()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { is_shared: true }
    }

    fn ready(&self) -> Answer<'_, ()> {
        let sql = "select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean";
        let asked = self.db.read(sql, Vec::new());
        async move {
            let takes_no_writes = asked.await?.first().is_none_or(|row| row.get(0));
            if self.is_twice.load(Ordering::Relaxed) {
                let node = &self.node;
                let what = format!("another process is called `{node}`; give each a `server.node` of its own");
                return Err(JobsError::Unavailable { what });
            }
            let what = || "PostgreSQL takes no writes: it is a standby, or read-only".to_owned();
            if takes_no_writes { Err(JobsError::Unavailable { what: what() }) } else { Ok(()) }
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.db.close().boxed()
    }
}

fn records(found: &[tokio_postgres::Row]) -> Result<Vec<JobRecord>, JobsError> {
    Ok(rows::read_all(found)?.iter().map(|kept| kept.row.record()).collect())
}

fn sync_for(mut levels: impl Iterator<Item = Durability>) -> Sync {
    if levels.any(|level| level == Durability::Disk) { Sync::Disk } else { Sync::Local }
}
