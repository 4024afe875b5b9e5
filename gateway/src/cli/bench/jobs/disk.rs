//! What the disk can do by itself: small writes, each of them synced, one after the other.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::CliError;
use crate::cli::delays::{Percentiles, histogram};

/// As much as a page of the store's log.
const BLOCK: [u8; 4096] = [0x55; 4096];

/// How often a disk syncs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Rate {
    pub(super) syncs_per_second: f64,
    pub(super) sync_ms: Percentiles,
}

/// Appends and syncs for a while.
///
/// # Errors
/// When the folder takes no file.
pub(super) fn measure(folder: &Path, time: Duration) -> Result<Rate, CliError> {
    let path = folder.join("synced");
    let failed = |error: std::io::Error| CliError::Failed(format!("`{}` cannot be written: {error}", path.display()));
    let mut file = OpenOptions::new().create_new(true).append(true).open(&path).map_err(failed)?;
    let (began, mut delays) = (Instant::now(), histogram());
    while began.elapsed() < time {
        let asked = Instant::now();
        file.write_all(&BLOCK).and_then(|()| file.sync_data()).map_err(failed)?;
        delays.saturating_record(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    let syncs_per_second = (delays.len() as f64 / began.elapsed().as_secs_f64()).round();
    Ok(Rate { syncs_per_second, sync_ms: Percentiles::of(&delays) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_syncs_a_few_times_a_second_at_least() {
        let folder = tempfile::tempdir().expect("a folder");
        let rate = measure(folder.path(), Duration::from_millis(300)).expect("it takes files");
        assert!(rate.syncs_per_second > 1.0, "{rate:?}");
    }
}
