//! `run = "query"`: the rows of a named query.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::ask::{Ask, Question};
use super::context::JobContext;
use super::queries::Queries;
use super::source::{Execution, Sources};
use super::work::{Consumer, Failure, Outcome};
use crate::jobs::results::RowSet;

/// Runs named queries.
pub(crate) struct QueryConsumer {
    pub(crate) queries: Arc<Queries>,
    pub(crate) sources: Arc<Sources>,
}

impl Consumer for QueryConsumer {
    fn run<'a>(&'a self, job: &'a JobContext) -> BoxFuture<'a, Result<Outcome, Failure>> {
        async move {
            let question = question(job, &self.queries)?;
            rows(&question, job, &self.sources).await.map(Outcome::Rows)
        }
        .boxed()
    }
}

/// Which query a job asks for. Checked when it was enqueued, and again here: the configuration may have changed since.
pub(crate) fn question(job: &JobContext, queries: &Queries) -> Result<Question, Failure> {
    let refused = |refusal: groupcast_protocol::Refusal| Failure::permanent(refusal.code.as_str(), refusal.message);
    Ask::parse(job.message()).and_then(|ask| ask.of(job.asker()).question(queries)).map_err(refused)
}

/// The rows of a query.
pub(crate) async fn rows(question: &Question, job: &JobContext, sources: &Sources) -> Result<RowSet, Failure> {
    let query = &question.query;
    let values =
        query.bind(&question.params).map_err(|refusal| Failure::permanent(refusal.code.as_str(), refusal.message))?;
    let execution = Execution {
        sql: Arc::clone(&query.sql),
        values,
        max_rows: question.limit.unwrap_or(u64::MAX).min(query.config.max_rows),
        max_bytes: query.config.max_bytes.0,
        timeout: query.config.timeout.0,
        stop: job.stop().clone(),
    };
    Ok(sources.run(&query.config.source, execution).await?)
}
