//! Kill points: named places where a test has the process kill itself, so that every window between two steps is hit on
//! purpose and not by luck.
//!
//! They exist only in programs that are built with the feature `kill-points`; elsewhere `hit` is nothing, and to arm
//! one is refused. `GROUPCAST_KILL_POINT=after_claim:3` ends the process, as `kill -9` would, when it comes to that
//! place for the third time.

use std::fmt;
use std::str::FromStr;

use crate::config::consumer::StoreKind;

/// The variable that arms one.
pub const VARIABLE: &str = "GROUPCAST_KILL_POINT";

/// A place where the process can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KillPoint {
    /// Jobs are inserted, and not committed.
    AfterInsertBeforeSync,
    /// A commit is on its way to the server of the store, and its answer is not read: the server may still be at it when
    /// the same is asked again.
    AfterCommitBeforeAnswer,
    /// Jobs are committed at their durability, and not acknowledged.
    AfterSyncBefore202,
    /// Jobs are claimed, and not begun.
    AfterClaim,
    /// A query has given some of its rows.
    MidRows,
    /// A result is stored, and its job does not say so.
    AfterResultBeforeAck,
    /// A job has ended, and nobody was told.
    AfterAckBeforePublish,
    /// A write-ahead log is being copied into its database.
    MidCheckpoint,
}

impl KillPoint {
    /// All of them, in the order of a job's life.
    pub const ALL: [Self; 8] = [
        Self::AfterInsertBeforeSync,
        Self::AfterCommitBeforeAnswer,
        Self::AfterSyncBefore202,
        Self::AfterClaim,
        Self::MidRows,
        Self::AfterResultBeforeAck,
        Self::AfterAckBeforePublish,
        Self::MidCheckpoint,
    ];

    /// Whether a gateway comes to it whose jobs are in this store; only there does it make sense to arm it.
    pub fn is_in(self, store: StoreKind) -> bool {
        match self {
            Self::AfterInsertBeforeSync
            | Self::AfterSyncBefore202
            | Self::AfterClaim
            | Self::MidRows
            | Self::AfterResultBeforeAck
            | Self::AfterAckBeforePublish => true,
            // A commit to a file is one call, with nothing between asking and answer.
            Self::AfterCommitBeforeAnswer => store == StoreKind::Postgres,
            // The log of a server is the server's.
            Self::MidCheckpoint => store == StoreKind::Sqlite,
        }
    }

    /// The sentence that refuses it where [`KillPoint::is_in`] says no.
    pub fn is_never_come_to(self, store: StoreKind) -> String {
        let there = Self::ALL.into_iter().filter(|point| point.is_in(store)).map(Self::as_str).collect::<Vec<_>>();
        let (store, there) = (store.as_str(), there.join(", "));
        format!("a gateway with the store `{store}` never comes to `{self}`; it comes to {there}")
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AfterInsertBeforeSync => "after_insert_before_sync",
            Self::AfterCommitBeforeAnswer => "after_commit_before_answer",
            Self::AfterSyncBefore202 => "after_sync_before_202",
            Self::AfterClaim => "after_claim",
            Self::MidRows => "mid_rows",
            Self::AfterResultBeforeAck => "after_result_before_ack",
            Self::AfterAckBeforePublish => "after_ack_before_publish",
            Self::MidCheckpoint => "mid_checkpoint",
        }
    }
}

impl fmt::Display for KillPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KillPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|point| point.as_str() == text);
        found.ok_or_else(|| format!("there is no kill point `{text}`; there are {all}"))
    }
}

/// A point and how often it is come to until it kills, as in `after_claim:3`; once, when no number is named.
///
/// # Errors
/// When the text is neither.
pub fn parse(text: &str) -> Result<(KillPoint, u32), String> {
    let (point, nth) = text.split_once(':').unwrap_or((text, "1"));
    let nth = nth.parse().ok().filter(|nth| *nth > 0);
    let nth = nth.ok_or_else(|| format!("`{text}` is no kill point; write NAME or NAME:NTH, as in after_claim:3"))?;
    Ok((point.parse()?, nth))
}

#[cfg(not(feature = "kill-points"))]
mod armed {
    use super::KillPoint;
    use crate::config::consumer::StoreKind;

    /// Refuses: this program has none.
    ///
    /// # Errors
    /// Always.
    pub fn arm(_: &str, _: StoreKind) -> Result<(), String> {
        Err("kill points are for tests, and this program is built without the feature `kill-points`; unset the variable".into())
    }

    /// Nothing.
    #[inline(always)]
    pub(crate) const fn hit(_: KillPoint) {}
}

#[cfg(feature = "kill-points")]
mod armed {
    #[cfg(feature = "postgres")]
    use std::pin::pin;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::{KillPoint, parse};
    use crate::config::consumer::StoreKind;

    /// How long after [`hit_soon`] the process ends, at most: within a checkpoint of some megabytes.
    const SOON: Duration = Duration::from_millis(4);

    struct Armed {
        point: KillPoint,
        left: AtomicU32,
    }

    static ARMED: OnceLock<Armed> = OnceLock::new();

    /// Arms a point, once for the process, whose jobs are in this store: see [`parse`].
    ///
    /// # Errors
    /// When there is no such point.
    pub fn arm(text: &str, store: StoreKind) -> Result<(), String> {
        let (point, nth) = parse(text)?;
        if !point.is_in(store) {
            return Err(point.is_never_come_to(store));
        }
        let armed = Armed { point, left: AtomicU32::new(nth) };
        ARMED.set(armed).map_err(|_| "a kill point is armed already".to_owned())
    }

    /// Ends the process if it is time.
    pub(crate) fn hit(point: KillPoint) {
        if is_time(point) {
            die();
        }
    }

    /// Ends the process if it is time, while the caller goes on with what takes a moment.
    pub(crate) fn hit_soon(point: KillPoint) {
        if is_time(point) {
            let pause = SOON.mul_f64(crate::clock::random_fraction());
            std::thread::spawn(move || {
                std::thread::sleep(pause);
                die();
            });
        }
    }

    /// Does something on a connection; if it is time, ends the process when it is asked for and before it is answered.
    #[cfg(feature = "postgres")]
    pub(crate) async fn hit_unanswered<T>(point: KillPoint, request: impl Future<Output = T>) -> T {
        let mut request = pin!(request);
        if !is_time(point) {
            return request.await;
        }
        // The first poll hands the request to the task that has the connection, the pause lets that write it.
        if futures_util::poll!(request.as_mut()).is_pending() {
            tokio::task::yield_now().await;
        }
        die()
    }

    fn is_time(point: KillPoint) -> bool {
        ARMED.get().is_some_and(|armed| armed.point == point && armed.left.fetch_sub(1, Ordering::Relaxed) == 1)
    }

    fn die() -> ! {
        let killed = kill_process(getpid(), Signal::KILL);
        // The signal ends every thread of the process, this one at the latest when it comes back from the system.
        tracing::error!(?killed, "the process outlived SIGKILL");
        std::process::abort()
    }
}

pub use armed::arm;
pub(crate) use armed::hit;
#[cfg(feature = "kill-points")]
pub(crate) use armed::hit_soon;
#[cfg(all(feature = "kill-points", feature = "postgres"))]
pub(crate) use armed::hit_unanswered;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for point in KillPoint::ALL {
            assert_eq!(parse(point.as_str()), Ok((point, 1)));
            assert_eq!(parse(&format!("{point}:7")), Ok((point, 7)));
        }
    }

    #[test]
    fn every_store_has_most_of_them_and_each_has_one_of_its_own() {
        let of = |store| KillPoint::ALL.into_iter().filter(move |point| point.is_in(store));
        let (sqlite, postgres): (Vec<_>, Vec<_>) = (of(StoreKind::Sqlite).collect(), of(StoreKind::Postgres).collect());
        assert_eq!((sqlite.len(), postgres.len()), (7, 7));
        assert!(sqlite.contains(&KillPoint::MidCheckpoint) && !postgres.contains(&KillPoint::MidCheckpoint));
        assert!(postgres.contains(&KillPoint::AfterCommitBeforeAnswer));
    }

    #[test]
    fn what_is_no_point_is_refused() {
        assert!(parse("after_lunch").is_err_and(|why| why.contains("after_claim")));
        assert!(parse("after_claim:0").is_err());
        assert!(parse("after_claim:").is_err());
    }

    #[cfg(not(feature = "kill-points"))]
    #[test]
    fn a_program_without_them_arms_none() {
        assert!(arm("after_claim", StoreKind::Sqlite).is_err_and(|why| why.contains("kill-points")));
    }
}
