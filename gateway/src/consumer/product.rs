//! `Product`: what came of an execution, for one job or for many.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::work::{Failure, Outcome};
use crate::config::consumer::Durability;
use crate::jobs::queue::{Claimed, How};
use crate::jobs::results::{Content, ResultKey};
use crate::jobs::{Jobs, JobsError, ResultInfo};

/// A checked outcome. It is digested once and stored once, whoever stores it; the jobs that share it refer to that.
pub(crate) struct Product {
    content: Arc<Content>,
    info: ResultInfo,
    stored: OnceCell<(ResultKey, Instant)>,
}

/// What was stored longer ago may be about to be swept, if no job refers to it any more: that spares an hour.
const SHARED_FOR: Duration = Duration::from_secs(1800);

impl Product {
    /// Checks an outcome.
    pub(crate) fn new(outcome: Outcome, made_for: &Claimed) -> Result<Self, Failure> {
        let content = Arc::new(checked(outcome)?);
        let info = content.info(made_for.lease.id);
        Ok(Self { content, info, stored: OnceCell::new() })
    }

    /// What it is.
    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    /// How large it is.
    pub(crate) fn bytes(&self) -> u64 {
        self.info.bytes
    }

    /// Stores it for an attempt, unless that is done; answers how the attempt ends. `age` is that of an answer from the
    /// cache.
    ///
    /// # Cancel safety
    /// Dropped, the next who asks stores it.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(crate) async fn store(&self, jobs: &Jobs, claimed: &Claimed, age: Option<Duration>) -> Result<How, JobsError> {
        let store = || jobs.store_result(claimed, Arc::clone(&self.content));
        let first = async || Ok::<_, JobsError>((store().await?, Instant::now()));
        let (stored, at) = *self.stored.get_or_try_init(first).await?;
        // In memory the store may have given it up meanwhile.
        let is_kept = age.is_none() || (at.elapsed() < SHARED_FOR && claimed.lease.durability != Durability::Memory);
        let stored = if is_kept { stored } else { store().await? };
        let age_ms = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let info = ResultInfo { url: self.content.url(claimed.lease.id), age_ms, ..self.info.clone() };
        let is_own = stored == claimed.result_key();
        Ok(if is_own { How::Succeeded(info) } else { How::Shared { info, stored } })
    }
}

fn checked(outcome: Outcome) -> Result<Content, Failure> {
    match outcome {
        Outcome::Json(text) => match serde_json::from_slice::<serde::de::IgnoredAny>(&text) {
            Ok(_) => Ok(Content::Json(text)),
            Err(error) => Err(Failure::permanent("bad_result", format!("the consumer's result is not JSON: {error}"))),
        },
        Outcome::Rows(rows) => Ok(Content::Rows(rows)),
        Outcome::Files(files) if files.files.is_empty() => {
            Err(Failure::permanent("bad_result", "the consumer's result has no file"))
        }
        Outcome::Files(files) => Ok(Content::Files(files)),
    }
}
