//! `Product`: what came of an execution, for one job or for many.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::work::{Failure, Outcome};
use crate::jobs::queue::{Claimed, How};
use crate::jobs::results::{Content, ResultKey};
use crate::jobs::{Jobs, JobsError, ResultInfo};

/// A checked outcome. It is digested once and stored once, whoever stores it; the jobs that share it refer to that.
pub(crate) struct Product {
    content: Arc<Content>,
    info: ResultInfo,
    stored: OnceCell<ResultKey>,
}

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

    /// Stores it for an attempt, unless that is done; answers how the attempt ends.
    ///
    /// # Cancel safety
    /// Dropped, the next who asks stores it.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(crate) async fn store(&self, jobs: &Jobs, claimed: &Claimed) -> Result<How, JobsError> {
        let store = || jobs.store_result(claimed, Arc::clone(&self.content));
        let stored = *self.stored.get_or_try_init(store).await?;
        let info = ResultInfo { url: self.content.url(claimed.lease.id), ..self.info.clone() };
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
