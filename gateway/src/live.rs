//! Live queries: the rows of a named query, as they are and then as they change, for everybody who subscribed to it.
//!
//! A query with its parameters is a *set*. However many subscribe to it, it is asked once: every `refresh`, and when one
//! of its `tags` is invalidated; and what changed goes out by one `group_send` to the set's group. So a subscriber is an
//! ordinary member of an ordinary group, and this module knows no sockets. Reading order: `question` (which set is
//! meant), `table` (what is due), `run` (one run: ask, compare, tell), `rows` (the difference), `message` (as it is told),
//! `known` (what a newcomer gets).
//!
//! # Contract
//!
//! - **Once for each set.** A set never runs twice at the same time, and all sets together occupy fewer threads or
//!   connections of a source than it has, so that jobs find one. Sets of the same `refresh` are spread over it.
//! - **Only changes are told**, each with a `version` that is one more than the last. A newcomer enters the group first
//!   and is told the state then (`Live::join`): no change lies between the two, and one that is told twice has the
//!   version that he knows.
//! - **Nobody, nothing.** A set that nobody is in does not run, and is forgotten after a while. Who is in is the
//!   layer's to know: nothing has to be given back by a connection that ends.
//! - **Bounds.** `[limits] live_queries` sets; more are refused with `overloaded`. 64 KiB of rows in each; more are cut,
//!   and `truncated` says so.

mod counters;
mod known;
mod message;
mod question;
mod rows;
mod run;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use groupcast_channel_layer::ChannelLayer;
use groupcast_protocol::raw_object::RawObject;
use groupcast_protocol::{ErrorCode, GroupName, Refusal};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

pub(crate) use self::counters::Counters;
pub(crate) use self::question::Question;
use self::table::Table;
use crate::config::{Config, SourceConfig, SourceKind};
use crate::consumer::{Given, Queries, Sources, with_claims};
use crate::jobs::Asker;

/// How often it is looked for sets that nobody is in.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The live queries of this gateway. A cheap handle; [`Live::run`] does the work.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

struct Shared {
    queries: Arc<Queries>,
    sources: Arc<Sources>,
    layer: ChannelLayer,
    // A std-like mutex, held for a look-up or a step of the schedule: no await, and no row is touched in it.
    table: Mutex<Table>,
    /// Rung when something may be due earlier than before.
    bell: Notify,
    counters: Counters,
}

impl Live {
    /// Live queries over these parts. Nothing is asked before [`Live::run`].
    pub fn new(config: &Config, queries: Arc<Queries>, sources: Arc<Sources>, layer: ChannelLayer) -> Self {
        let table = Table::new(config.limits.live_queries, room(config), Instant::now());
        Self(Arc::new(Shared {
            queries,
            sources,
            layer,
            table: Mutex::new(table),
            bell: Notify::new(),
            counters: Counters::default(),
        }))
    }

    /// Which set a subscription means: with the claims of an asker, if it is a user's.
    ///
    /// # Errors
    /// `unknown_query`, `bad_params`, `too_large` parameters, and `bad_request` for a query that is not live.
    pub(crate) fn ask(&self, query: &str, params: &RawObject, asker: Option<&Asker>) -> Result<Arc<Question>, Refusal> {
        let query = self.0.queries.named(query)?;
        Question::new(query, &with_claims(query, given(params)?, asker)?).map(Arc::new)
    }

    /// The same, by parameters that came as words.
    ///
    /// # Errors
    /// As [`Live::ask`].
    pub(crate) fn ask_in_words(
        &self,
        query: &str,
        words: &[(String, String)],
        asker: Option<&Asker>,
    ) -> Result<Arc<Question>, Refusal> {
        let query = self.0.queries.named(query)?;
        Question::new(query, &with_claims(query, query.read_words(words), asker)?).map(Arc::new)
    }

    /// Takes notice of a newcomer, who is in the set's group already, and says what he has to be told, framed for
    /// WebSockets: the state as far as it is known. What is not known yet comes by the group.
    ///
    /// # Errors
    /// `overloaded` when there are as many sets as there may be; the newcomer has to leave the group again.
    pub(crate) fn join(&self, question: &Arc<Question>) -> Result<Vec<Bytes>, Refusal> {
        let state = self.0.table.lock().join(question, Instant::now())?;
        self.0.bell.notify_one();
        // Outside of the lock: the first newcomer after a change writes the snapshot for all.
        let known = state.known.map(|known| known.frame(question));
        Ok(known.into_iter().chain(state.failed.map(|failed| failed.frame(question))).collect())
    }

    /// Asks again what reads data of one of these tags; says how many sets that are. While a set runs, any number of
    /// calls leads to one more run.
    pub fn invalidate(&self, tags: &[String]) -> u64 {
        self.0.counters.invalidations.inc();
        let sets = self.0.table.lock().invalidate(tags, Instant::now());
        self.0.bell.notify_one();
        sets
    }

    /// Runs what is due, until it is told to stop; what runs then is stopped, too.
    pub async fn run(&self, stop: CancellationToken) {
        let mut running = FuturesUnordered::new();
        let mut sweep = interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next_due = self.0.table.lock().next_due();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.bell.notified() => {}
                Some(()) = running.next(), if !running.is_empty() => {}
                () = sleep_until(next_due.unwrap_or_else(Instant::now)), if next_due.is_some() => {}
                _ = sweep.tick() => self.sweep(),
            }
            let starts = self.0.table.lock().start_due(Instant::now(), |group| self.0.has_members(group));
            for start in starts {
                let group = start.question.group.clone();
                running.push(guard(self.0.clone(), group, run::run(self.0.clone(), start, stop.clone())));
            }
        }
    }

    /// What is counted.
    pub(crate) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// How many sets there are, and how many subscriptions to them: for metrics.
    pub(crate) fn load(&self) -> (u64, u64) {
        let groups = self.0.table.lock().groups();
        let subscribers = groups.iter().filter_map(|group| self.0.layer.group_len(group)).sum();
        (groups.len() as u64, subscribers)
    }

    fn sweep(&self) {
        self.0.table.lock().sweep(Instant::now(), |group| self.0.has_members(group));
    }
}

impl Shared {
    fn has_members(&self, group: &GroupName) -> bool {
        self.layer.group_len(group).is_some_and(|members| members > 0)
    }
}

/// Runs a set. A panic costs this run, and not all that are under way.
async fn guard(shared: Arc<Shared>, group: GroupName, run: impl Future<Output = ()>) {
    if AssertUnwindSafe(run).catch_unwind().await.is_err() {
        tracing::error!("a run of a live query panicked; the query is asked again");
        shared.counters.failures.inc();
        shared.table.lock().finish(&group, false, Instant::now());
    }
}

fn given(params: &RawObject) -> Result<Given, Refusal> {
    let unread = |error| Refusal::new(ErrorCode::BadParams, format!("the parameters cannot be read: {error}"));
    serde_json::from_str(params.as_str()).map_err(unread)
}

/// How many runs of each source may be under way: one fewer than it has threads or connections, so that a job finds one.
fn room(config: &Config) -> BTreeMap<String, usize> {
    let room = |source: &SourceConfig| {
        let all = match source.kind {
            SourceKind::Sqlite => source.threads,
            SourceKind::Postgres => source.pool,
        };
        all.saturating_sub(1).max(1)
    };
    config.source.iter().map(|(name, source)| (name.clone(), room(source))).collect()
}
