//! Looks at `[auth] revoked_file` again and again: who is named in it has to be out soon, and nobody to be asked for it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;

/// How often: whoever is revoked is out within 5 s.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// One look, on a file system that may not answer.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// By what it is seen that a file is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    modified: Option<SystemTime>,
    bytes: u64,
}

/// Keeps the list up to date until stopped. One that cannot be read leaves that which was there.
pub(super) async fn follow(path: PathBuf, auth: Auth, stop: CancellationToken) {
    let (mut known, mut told) = (None, None);
    loop {
        let look = {
            let (path, auth) = (path.clone(), auth.clone());
            tokio::task::spawn_blocking(move || look(&path, known, &auth))
        };
        let outcome = match stop.run_until_cancelled(timeout(READ_TIMEOUT, look)).await {
            None => return,
            Some(Ok(Ok(outcome))) => outcome,
            Some(Ok(Err(error))) => Err(error.to_string()),
            Some(Err(_elapsed)) => Err("it did not come in time".to_owned()),
        };
        match outcome {
            Ok(state) => (known, told) = (Some(state), None),
            Err(error) => {
                if told.as_ref() != Some(&error) {
                    tracing::error!(path = %path.display(), error, "the list of what is revoked cannot be used; the old one is kept");
                    told = Some(error);
                }
            }
        }
        if stop.run_until_cancelled(sleep(LOOK_INTERVAL)).await.is_none() {
            return;
        }
    }
}

/// Takes the list if it is another one.
fn look(path: &Path, known: Option<State>, auth: &Auth) -> Result<State, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    let state = State { modified: metadata.modified().ok(), bytes: metadata.len() };
    if known == Some(state) {
        return Ok(state);
    }
    if state.bytes > FILE_BYTES_MAX {
        return Err(format!("it has {} bytes, at most {FILE_BYTES_MAX} are read", state.bytes));
    }
    let list = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let (tokens, users) = auth.revoke(&list)?;
    if known.is_some() {
        tracing::info!(tokens, users, "the list of what is revoked was read again");
    }
    Ok(state)
}
