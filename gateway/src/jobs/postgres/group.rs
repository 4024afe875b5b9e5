//! `Group`: calls that wait while a transaction is under way are the next transaction together.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::db::{CALL_DEADLINE, Db, Sync};
use crate::jobs::counters::Counters;
use crate::jobs::error::JobsError;

/// Calls that wait for the transaction under way. More are refused with [`JobsError::Busy`].
const QUEUE_MAX: usize = 1024;

/// Calls in one transaction, so that the first of them does not wait for ever.
const BATCH_MAX: usize = 256;

/// What becomes of the calls of one transaction, each for itself.
pub(super) type Told<O> = Result<Vec<Result<Vec<O>, JobsError>>, JobsError>;

/// Carries out the calls of one transaction.
pub(super) type Act<I, O> =
    Box<dyn Fn(Sync, Arc<Vec<Vec<I>>>) -> BoxFuture<'static, Told<O>> + Send + std::marker::Sync>;

/// The handle of the task that gathers.
pub(super) struct Group<I, O> {
    queue: mpsc::Sender<Call<I, O>>,
}

struct Call<I, O> {
    sync: Sync,
    items: Vec<I>,
    reply: oneshot::Sender<Result<Vec<O>, JobsError>>,
}

impl<I: Clone + Send + std::marker::Sync + 'static, O: Send + 'static> Group<I, O> {
    /// Starts the task. It ends when the store is closed, after the calls that it has been given.
    pub(super) fn start(db: &Db, counters: Arc<Counters>, act: Act<I, O>) -> Self {
        let (queue, inbox) = mpsc::channel(QUEUE_MAX);
        db.spawn(gather(db.clone(), inbox, counters, act));
        Self { queue }
    }

    /// Answers after the commit.
    pub(super) async fn call(&self, sync: Sync, items: Vec<I>) -> Result<Vec<O>, JobsError> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Call { sync, items, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => JobsError::Busy,
            mpsc::error::TrySendError::Closed(_) => closed(),
        })?;
        match timeout(CALL_DEADLINE, answer).await {
            Ok(Ok(told)) => told,
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(JobsError::TimedOut),
        }
    }
}

fn closed() -> JobsError {
    JobsError::Unavailable { what: "it is closed".into() }
}

async fn gather<I, O>(db: Db, mut inbox: mpsc::Receiver<Call<I, O>>, counters: Arc<Counters>, act: Act<I, O>)
where
    I: Clone + Send + std::marker::Sync + 'static,
{
    let mut calls = Vec::new();
    loop {
        tokio::select! {
            biased;
            taken = inbox.recv_many(&mut calls, BATCH_MAX) => if taken == 0 { return },
            () = db.closed.cancelled(), if !inbox.is_closed() => inbox.close(),
        }
        // What its caller has given up is not begun.
        calls.retain(|call| !call.reply.is_closed());
        if !calls.is_empty() {
            carry_out(std::mem::take(&mut calls), &counters, &act).await;
        }
    }
}

async fn carry_out<I: Clone, O>(calls: Vec<Call<I, O>>, counters: &Counters, act: &Act<I, O>) {
    let sync = calls.iter().map(|call| call.sync).max().unwrap_or(Sync::Local);
    let items = Arc::new(calls.iter().map(|call| call.items.clone()).collect::<Vec<_>>());
    let told = act(sync, items).await;
    // A lost connection or a full disk fails everybody alike; anything else is the fault of one, who shall fail alone.
    if matches!(told, Err(JobsError::Postgres(_))) && calls.len() > 1 {
        for call in calls {
            let told = act(call.sync, Arc::new(vec![call.items])).await;
            let told = told.and_then(|mut told| told.pop().unwrap_or(Err(JobsError::TimedOut)));
            // The one who called may have given up.
            drop(call.reply.send(told));
        }
        return;
    }
    if told.is_ok() {
        counters.commits.add(1);
        counters.committed_calls.add(calls.len());
        counters.syncs.add(usize::from(sync == Sync::Disk));
    }
    match told {
        Ok(told) => calls.into_iter().zip(told).for_each(|(call, told)| drop(call.reply.send(told))),
        Err(error) => calls.into_iter().for_each(|call| drop(call.reply.send(Err(error.clone())))),
    }
}
