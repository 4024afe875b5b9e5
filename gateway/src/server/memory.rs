//! Watches how much memory the process has, and lets go of what holds most before the kernel ends all of it.

use std::rc::Rc;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::shard::Local;
use crate::app::App;
use crate::limits::memory::{INTERVAL, Level};

/// What an open connection takes of memory, at rest and mostly over TLS.
const CONNECTION_BYTES: u64 = 10 << 10;

/// Readings between two times that readers are closed: a second, in which what they held comes back.
const READINGS_PER_ORDER: u32 = 10;
/// The same for histories, whose bytes are known to be gone at once: a flood of messages fills them as fast.
const READINGS_PER_CUT: u32 = 2;

/// Looks until it is told to stop.
pub(super) async fn watch(app: App, shards: usize, stop: CancellationToken) {
    let mut interval = interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let memory = app.limits.memory();
    let mut readings = 0_u32;
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        if memory.read(known(&app)) != Level::Over {
            readings = 0;
            continue;
        }
        // Both are told what they lose, and can come back.
        if readings.is_multiple_of(READINGS_PER_ORDER) {
            memory.order(memory.excess() / shards.max(1) as u64);
        }
        if readings.is_multiple_of(READINGS_PER_CUT) {
            app.layer.shrink_histories(memory.excess());
        }
        readings = readings.wrapping_add(1);
    }
}

/// What a shard does of it: closes who has most waiting and reads nothing.
pub(super) async fn obey(local: Rc<Local>) {
    let memory = local.app.limits.memory();
    let mut orders = memory.orders();
    while orders.changed().await.is_ok() {
        let bytes = *orders.borrow_and_update();
        memory.count_shed(local.shard.borrow().shed(bytes));
    }
}

/// The bytes of what is known to be there.
fn known(app: &App) -> u64 {
    let stats = app.layer.stats();
    let connections = stats.connections.value().saturating_mul(CONNECTION_BYTES);
    stats.log_bytes.value() + stats.history.bytes.value() + connections
}
