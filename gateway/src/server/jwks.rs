//! Reads the published keys of an issuer: at start, in an interval, and when a token names one that is not known.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::auth::issuer::Issuer;
use crate::config::AuthConfig;

/// One reading.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a set; a key has less than two thousand.
const SET_BYTES_MAX: usize = 256 << 10;
/// After a reading that failed, unless the interval is shorter.
const RETRY: Duration = Duration::from_secs(10);

/// Where the keys are.
enum Place {
    File(PathBuf),
    Url(String),
}

/// Keeps the keys of an issuer up to date until stopped. What could not be read leaves those that were there.
pub(super) async fn follow(config: AuthConfig, auth: Auth, issuer: Arc<Issuer>, stop: CancellationToken) {
    let place = match (config.jwks_url, config.jwks_file) {
        (Some(url), _) => Place::Url(url),
        (None, Some(path)) => Place::File(path),
        (None, None) => return,
    };
    let (mut told, mut known) = (None, Vec::new());
    loop {
        let Some(read) = stop.run_until_cancelled(read(&place)).await else { return };
        let publish = |set: Vec<u8>| {
            let keys = issuer.publish(&set).map_err(|error| format!("it {error}"))?;
            // Who was let in by a key that is not there any more has to go.
            if std::mem::replace(&mut known, set.clone()) != set {
                auth.tell_changed();
            }
            Ok(keys)
        };
        let outcome = read.and_then(publish);
        issuer.answered();
        let wait = match outcome {
            Ok(keys) => {
                tracing::debug!(keys, "the issuer's keys were read");
                told = None;
                config.jwks_interval.0
            }
            Err(error) => {
                if told.as_ref() != Some(&error) {
                    tracing::warn!(error, "the issuer's keys cannot be read; those that were there are kept");
                    told = Some(error);
                }
                config.jwks_interval.0.min(RETRY)
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = issuer.asked() => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn read(place: &Place) -> Result<Vec<u8>, String> {
    let reading = async {
        match place {
            Place::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
                read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
            }
            Place::Url(url) => fetch(url).await,
        }
    };
    timeout(READ_TIMEOUT, reading).await.map_err(|_| "it did not come in time".to_owned())?
}

/// The address is the configuration's; nothing that a client says is part of it, and it leads nowhere else.
async fn fetch(url: &str) -> Result<Vec<u8>, String> {
    // The client takes the process-wide provider; a second call finds the first one's, which is the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().redirect(Policy::none()).timeout(READ_TIMEOUT).build();
    let client = client.map_err(|error| with_causes(&error))?;
    let mut response = client.get(url).send().await.map_err(|error| with_causes(&error))?;
    if !response.status().is_success() {
        return Err(format!("the answer is {}", response.status()));
    }
    let mut set = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| with_causes(&error))? {
        if set.len() + chunk.len() > SET_BYTES_MAX {
            return Err(format!("the answer has more than {SET_BYTES_MAX} bytes"));
        }
        set.extend_from_slice(&chunk);
    }
    Ok(set)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
