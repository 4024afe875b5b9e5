//! `Inline`: work that computes on the threads that serve the sockets. The counter-example, for measurements: it shows
//! what the pool is for.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::threads::PoolError;

/// Pieces of work for whoever serves them. As many wait as jobs run at once, which `concurrency` bounds.
#[derive(Default)]
pub(crate) struct Inline {
    waiting: Mutex<VecDeque<Box<dyn FnOnce() + Send>>>,
    added: Notify,
}

impl Inline {
    /// Does what comes, on the thread that this is awaited on, until it is dropped.
    pub(crate) async fn serve(&self) {
        loop {
            let next = self.waiting.lock().pop_front();
            match next {
                Some(work) => {
                    work();
                    tokio::task::yield_now().await;
                }
                None => self.added.notified().await,
            }
        }
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let (reply, answer) = oneshot::channel();
        let work = move || {
            if !reply.is_closed() {
                let done = catch_unwind(AssertUnwindSafe(work)).map_err(|_| PoolError::Panicked);
                // The one who asked may have left meanwhile.
                let _ = reply.send(done);
            }
        };
        self.waiting.lock().push_back(Box::new(work));
        self.added.notify_one();
        answer.await.unwrap_or(Err(PoolError::Closed))
    }
}
