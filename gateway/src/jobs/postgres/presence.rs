//! Which processes tell those who asked, and who takes over from one that is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use groupcast_protocol::JobId;
use tokio::time::{Instant, sleep};

use super::db::{Db, Failed, Sync, Tx, int};
use super::rows::Uuid;
use crate::clock;
use crate::jobs::watch::Watch;

/// Pending events that are taken over at once.
const BATCH: i64 = 500;

/// Says that this process is there, and takes over the pending events of processes that have not been heard of for two
/// leases, until the store is closed.
///
/// What it answers with is true while another process has this name.
pub(super) fn start(db: &Db, node: Arc<str>, lease: Duration, watch: Arc<Watch>) -> Arc<AtomicBool> {
    let closed = db.closed.clone();
    let is_twice = Arc::<AtomicBool>::default();
    let told = Arc::clone(&is_twice);
    let presence = Presence { db: db.clone(), node, boot: clock::new_id(), gone_after: 2 * lease, watch, is_twice };
    db.spawn(async move {
        // What is sent already happens or does not; nothing depends on it.
        closed.run_until_cancelled(presence.go_on(lease / 3)).await;
    });
    told
}

struct Presence {
    db: Db,
    node: Arc<str>,
    /// Tells this process from another one of the same name.
    boot: JobId,
    gone_after: Duration,
    watch: Arc<Watch>,
    is_twice: Arc<AtomicBool>,
}

impl Presence {
    async fn go_on(&self, every: Duration) {
        let mut last_mine = Instant::now();
        loop {
            match self.beat().await {
                Ok(Beat { is_mine, taken_over }) => {
                    if is_mine {
                        last_mine = Instant::now();
                        self.is_twice.store(false, Ordering::Relaxed);
                    }
                    if taken_over > 0 {
                        tracing::info!(jobs = taken_over, "telling what came of jobs whose gateway is gone");
                        self.watch.events.notify_one();
                    }
                }
                Err(error) => {
                    // Nobody knows whose the name is: not told, and counted from when it can be known again.
                    tracing::debug!(%error, "this process could not say that it is there");
                    last_mine = Instant::now();
                }
            }
            // A predecessor is forgotten by then.
            if last_mine.elapsed() > 2 * self.gone_after && !self.is_twice.swap(true, Ordering::Relaxed) {
                let node = &*self.node;
                tracing::error!(node, "another process has this name; give each a `server.node` of its own");
            }
            sleep(every).await;
        }
    }

    async fn beat(&self) -> Result<Beat, crate::jobs::error::JobsError> {
        let (node, boot, gone_after) = (Arc::clone(&self.node), self.boot, self.gone_after);
        let beat = self.db.transact(Sync::Off, move |tx| {
            let node = Arc::clone(&node);
            async move { beat(tx, &node, boot, gone_after).await }.boxed()
        });
        beat.await
    }
}

struct Beat {
    /// Whether the name is this process' own.
    is_mine: bool,
    taken_over: u64,
}

async fn beat(tx: &Tx<'_>, node: &str, boot: JobId, gone_after: Duration) -> Result<Beat, Failed> {
    let gone = int(tx.now.saturating_sub(u64::try_from(gone_after.as_millis()).unwrap_or(u64::MAX)));
    let sql = "insert into node values ($1, $2, $3) on conflict (name) do update
        set boot = excluded.boot, seen_at = excluded.seen_at where node.boot = excluded.boot or node.seen_at < $4";
    let is_mine = tx.execute(sql, &[&node, &Uuid(boot), &int(tx.now), &gone]).await? > 0;
    // While the server was down nobody could say that he is there.
    if tx.now < tx.server_began.saturating_add(u64::try_from(gone_after.as_millis()).unwrap_or(u64::MAX)) {
        return Ok(Beat { is_mine, taken_over: 0 });
    }
    let sql = "update job set origin = $1 where id in (select id from job where event_pending and origin <> $1
        and not exists (select 1 from node where node.name = job.origin and node.seen_at >= $2)
        order by seq limit $3 for update skip locked)";
    let taken_over = tx.execute(sql, &[&node, &gone, &BATCH]).await?;
    Ok(Beat { is_mine, taken_over })
}
