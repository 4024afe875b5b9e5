//! What is taken from a changed configuration without a restart: who may do what and how much, and the certificate.
//!
//! A configuration that cannot be used changes nothing, and the log says why. Of one that can, everything is taken that can
//! be, and what waits for a restart is named.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use toml::{Table, Value};

use crate::app::App;
use crate::clock;
use crate::config::{AuthConfig, Config};

/// Reads the configuration again, from wherever it came; with an error says in one text what is wrong. May block.
pub type Loader = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// One reading: a file may lie on something that does not answer.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings below `[auth]` that somebody follows who was started with them.
const FOLLOWED: &[&str] = &["jwks_file", "jwks_url", "jwks_interval", "revoked_file"];

/// Settings below `[limits]` that are looked at each time ([`crate::limits::Limits::replace`]). The others are built into what they bound.
const COUNTED: &[&str] = &[
    "connections",
    "connections_per_address",
    "connections_per_user",
    "connection_rate",
    "address_rate",
    "user_rate",
    "key_rate",
    "group_rate",
    "exempt_addresses",
    "memory",
];

/// Takes what can be taken, whenever it is asked for, until stopped.
pub(super) async fn follow(app: App, loader: Loader, asked: Arc<Notify>, stop: CancellationToken) {
    while stop.run_until_cancelled(asked.notified()).await.is_some() {
        let load = Arc::clone(&loader);
        let reading = timeout(READ_TIMEOUT, tokio::task::spawn_blocking(move || load()));
        let Some(read) = stop.run_until_cancelled(reading).await else { return };
        let outcome = match read {
            Ok(Ok(read)) => read.and_then(|config| take(&app, &config)),
            Ok(Err(error)) => Err(format!("reading it failed: {error}")),
            Err(_elapsed) => Err(format!("it could not be read within {} s", READ_TIMEOUT.as_secs())),
        };
        tell(&app, outcome);
    }
}

/// Takes what can be taken; gives the names of the settings that wait for a restart.
fn take(app: &App, new: &Config) -> Result<Vec<String>, String> {
    let running = &app.config;
    if let (Some(auth), Some(followed)) = (&new.auth, &running.auth) {
        let auth = AuthConfig {
            jwks_file: followed.jwks_file.clone(),
            jwks_url: followed.jwks_url.clone(),
            jwks_interval: followed.jwks_interval,
            jwks: followed.jwks.clone(),
            ..auth.clone()
        };
        app.auth.replace(&auth, &new.group).map_err(|error| error.to_string())?;
        if let Some(issuer) = app.auth.issuer() {
            issuer.ring();
        }
    }
    app.limits.replace(&new.limits);
    Ok(waiting(running, new))
}

fn tell(app: &App, outcome: Result<Vec<String>, String>) {
    let metrics = &app.metrics;
    match outcome {
        Ok(waiting) => {
            metrics.config_reloaded(Some(clock::now_ms()));
            tracing::info!("the configuration was read again");
            if !waiting.is_empty() {
                tracing::warn!(settings = waiting.join(", "), "these settings have changed, and wait for a restart");
            }
        }
        Err(error) => {
            metrics.config_reloaded(None);
            tracing::error!(error, "the configuration cannot be used; all stays as it was");
        }
    }
}

/// Settings that differ and were not taken: with their key where a section has keys, else by the section.
fn waiting(running: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (table(running), table(new));
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().flat_map(|section| differences(section, old.get(section), new.get(section))).collect()
}

fn differences(section: &str, old: Option<&Value>, new: Option<&Value>) -> Vec<String> {
    match (old, new) {
        (Some(Value::Table(old)), Some(Value::Table(new))) => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
            keys.sort();
            keys.dedup();
            let waits = |key: &&String| old.get(*key) != new.get(*key) && !is_taken(section, key);
            keys.into_iter().filter(waits).map(|key| format!("{section}.{key}")).collect()
        }
        (old, new) if old != new && !only_types_differ(section, old, new) => vec![section.to_owned()],
        _ => Vec::new(),
    }
}

fn is_taken(section: &str, key: &str) -> bool {
    match section {
        "auth" => !FOLLOWED.contains(&key),
        "limits" => COUNTED.contains(&key),
        _ => false,
    }
}

/// What clients may send to a group is a part of who may do what.
fn only_types_differ(section: &str, old: Option<&Value>, new: Option<&Value>) -> bool {
    let (Some(Value::Array(old)), Some(Value::Array(new))) = (old, new) else { return false };
    let without_types = |groups: &[Value]| -> Vec<Value> {
        let mut groups = groups.to_vec();
        groups.iter_mut().filter_map(Value::as_table_mut).for_each(|group| drop(group.remove("types")));
        groups
    };
    section == "group" && without_types(old) == without_types(new)
}

fn table(config: &Config) -> Table {
    // What was printed can be read.
    config.print().parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config(text: &str) -> Config {
        Config::load(&Sources::text(text)).expect("a good configuration").config
    }

    #[test]
    fn what_waits_for_a_restart_is_named() {
        let auth = "[auth]\nanonymous = { subscribe = [\"a\"] }\n";
        let running = config(&format!("{auth}[[group]]\nname = \"g\"\n"));
        let group = "[[group]]\nname = \"g\"\n";
        for (new, expected) in [
            (format!("{auth}{group}"), &[][..]),
            (format!("[auth]\nanonymous = {{ subscribe = [\"b\"] }}\n{group}"), &[]),
            (format!("{auth}{group}types = [\"chat\"]\n"), &[]),
            (format!("{auth}{group}presence = true\n"), &["group"]),
            (format!("{auth}{auth2}{group}", auth2 = "tenant_claim = \"org\"\n"), &[]),
            (
                format!("{auth}revoked_file = \"x\"\n[server]\nlisten = \"127.0.0.1:9\"\nlog = \"warn\"\n{group}"),
                &["auth.revoked_file", "server.listen", "server.log"],
            ),
            (
                format!("{auth}[limits]\nconnections = 7\nuser_rate = \"3/s\"\nlog_bytes = \"2MiB\"\n{group}"),
                &["limits.log_bytes"],
            ),
            (group.to_owned(), &["auth"]),
        ] {
            let found = match new.contains("revoked_file") {
                // The file need not be there for this.
                true => {
                    let mut found = config(&new.replace("revoked_file = \"x\"\n", ""));
                    found.auth.as_mut().expect("there is one").revoked_file = Some("x".into());
                    waiting(&running, &found)
                }
                false => waiting(&running, &config(&new)),
            };
            assert_eq!(found, expected, "{new}");
        }
    }
}
