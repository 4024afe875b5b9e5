//! Whether the gateway can do its work, and whether it is about to end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long one check may take; what does not answer by then is not ready.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks one part whether it works; `Err` says what is the matter.
pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The state of the gateway as a whole. Cheap to clone; clones share the state.
#[derive(Clone, Default)]
pub struct Health {
    draining: CancellationToken,
    /// Shared: a handle is cloned for each request.
    checks: Arc<Vec<(String, Check)>>,
}

impl Health {
    /// Adds a part that has to work, such as `jobs` or `source.demo`. Before the handle is cloned.
    #[must_use]
    pub fn with_check(mut self, part: impl Into<String>, check: Check) -> Self {
        Arc::make_mut(&mut self.checks).push((part.into(), check));
        self
    }

    /// Begins the end: `/readyz` says so, and nobody new is let in.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether the end has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits for something, or until the end has begun: `None` then.
    pub async fn unless_draining<T>(&self, something: impl Future<Output = T>) -> Option<T> {
        self.draining.run_until_cancelled(something).await
    }

    /// Asks every part at once. Gives the name of each, and what is the matter with it.
    pub async fn check(&self) -> Vec<(String, Result<(), String>)> {
        let late = || Err(format!("no answer within {} s", CHECK_TIMEOUT.as_secs()));
        let checks = self.checks.iter().map(async |(part, check)| {
            let answer = timeout(CHECK_TIMEOUT, check()).await;
            (part.clone(), answer.unwrap_or_else(|_| late()))
        });
        let gateway = if self.is_draining() { Err("about to end".to_owned()) } else { Ok(()) };
        let mut all = vec![("gateway".to_owned(), gateway)];
        all.extend(join_all(checks).await);
        all
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<&String> = self.checks.iter().map(|(part, _)| part).collect();
        f.debug_struct("Health").field("draining", &self.is_draining()).field("parts", &parts).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_part_is_named_with_what_is_the_matter() {
        let health = Health::default()
            .with_check("fine", Arc::new(|| Box::pin(async { Ok(()) })))
            .with_check("stuck", Arc::new(|| Box::pin(std::future::pending())));
        let told = health.check().await;
        assert_eq!(told[0], ("gateway".to_owned(), Ok(())));
        assert_eq!(told[1], ("fine".to_owned(), Ok(())));
        assert_eq!(told[2], ("stuck".to_owned(), Err("no answer within 2 s".to_owned())));
        health.clone().drain();
        assert!(health.is_draining());
    }
}
