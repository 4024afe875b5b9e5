//! One run of a set: asks the source, compares, tells what has changed.

use std::sync::Arc;
use std::time::Duration;

use groupcast_protocol::Message;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::known::{Failed, Known};
use super::message;
use super::question::Question;
use super::table::{MISSES_MAX, Start, Told};
use crate::consumer::{Execution, Failure, Stop};
use crate::jobs::ErrorClass;
use crate::jobs::results::RowSet;

/// Bytes of rows of one set; more are cut. As of a job's result that travels in its event.
pub(super) const BYTES_MAX: usize = 64 << 10;
/// How long a run may wait for a thread of its source, which jobs may have taken.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What came of a run.
pub(super) struct News {
    pub(super) told: Told,
    /// What the members have to hear of it.
    pub(super) message: Option<Message>,
}

/// Runs once. Ends with [`super::table::Table::finish`] unless it is dropped, with which everything ends.
pub(super) async fn run(shared: Arc<Shared>, start: Start, stop: CancellationToken) {
    let Start { question, told } = start;
    let (counters, began) = (&shared.counters, Instant::now());
    counters.runs.inc();
    let answer = ask(&shared, &question, &stop).await;
    counters.seconds.observe(began.elapsed().as_secs_f64());
    if stop.is_cancelled() {
        return;
    }
    let news = answer.and_then(|set| compare(&question, &told, set));
    let news = news.unwrap_or_else(|failure| {
        counters.failures.inc();
        failed(&question, told, failure)
    });
    shared.table.lock().learn(&question.group, news.told);
    let taken = match news.message {
        None => true,
        Some(message) => {
            counters.changes.inc();
            let sent = shared.layer.group_send(&question.group, &message).await;
            sent.inspect_err(|error| tracing::warn!(%error, "a change of a live query was not taken")).is_ok()
        }
    };
    shared.table.lock().finish(&question.group, taken, Instant::now());
}

async fn ask(shared: &Shared, question: &Question, stop: &CancellationToken) -> Result<RowSet, Failure> {
    let config = &question.query.config;
    let time = config.timeout.0.saturating_add(WAIT_MAX);
    let execution = Execution {
        sql: Arc::clone(&question.query.sql),
        values: question.values.clone(),
        max_rows: config.max_rows,
        max_bytes: config.max_bytes.0.min(BYTES_MAX),
        timeout: config.timeout.0,
        stop: Stop { token: stop.clone(), ..Stop::after(time) },
    };
    match timeout(time, shared.sources.run(&config.source, execution)).await {
        Ok(answer) => Ok(answer?),
        Err(_elapsed) => {
            let why = format!("source `{}` had no thread free for it; it has too much to do", config.source);
            Err(Failure::transient("source_unavailable", why))
        }
    }
}

/// What is new. After a failure all rows are told, also when they are the same: that says that it is over.
pub(super) fn compare(question: &Question, told: &Told, set: RowSet) -> Result<News, Failure> {
    let same = || News { told: Told { misses: 0, ..told.clone() }, message: None };
    let digest = set.digest();
    let before = told.known.as_deref();
    let is_like = |known: &&Known| known.columns == set.columns && known.truncated == set.truncated;
    let comparable = before.filter(is_like).filter(|_| told.failed.is_none() && !told.untold);
    if comparable.is_some_and(|known| known.digest == digest) {
        return Ok(same());
    }
    let version = before.map_or(1, |known| known.version + 1);
    let known = Known::new(question, version, digest, set)?;
    let message = match difference(question, comparable, &known)? {
        Difference::Nothing => return Ok(same()),
        Difference::Rows(message) => message,
        Difference::Everything => known.snapshot.clone(),
    };
    let told = Told { known: Some(Arc::new(known)), ..Told::default() };
    Ok(News { told, message: Some(message) })
}

enum Difference {
    /// Only the order of rows, which is not told where they have a key.
    Nothing,
    Rows(Message),
    /// There is no key, or it is no key of these rows, or all rows are shorter than what has changed.
    Everything,
}

fn difference(question: &Question, before: Option<&Known>, after: &Known) -> Result<Difference, Failure> {
    let Some((earlier, rows, since)) =
        before.and_then(|before| Some((before.keyed.as_ref()?, after.keyed.as_ref()?, before.version)))
    else {
        return Ok(Difference::Everything);
    };
    let diff = rows.since(earlier);
    if diff.is_empty() {
        return Ok(Difference::Nothing);
    }
    if diff.bytes() >= after.ndjson.len() {
        return Ok(Difference::Everything);
    }
    message::diff(question, after, since, &diff).map(Difference::Rows)
}

/// A failure is told once, until it is another; one that may pass by itself, when it has not for a few runs.
pub(super) fn failed(question: &Question, told: Told, failure: Failure) -> News {
    let misses = if failure.class == ErrorClass::Transient { told.misses.saturating_add(1) } else { MISSES_MAX };
    let failed = Failed::from(failure);
    if misses < MISSES_MAX || (told.failed.as_ref().is_some_and(|known| **known == failed) && !told.untold) {
        return News { told: Told { misses, ..told }, message: None };
    }
    let message = message::error(question, &failed);
    News { told: Told { failed: Some(Arc::new(failed)), misses, ..told }, message: Some(message) }
}
