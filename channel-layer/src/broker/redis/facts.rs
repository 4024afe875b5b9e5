//! What a server says of itself at connect.

use std::collections::HashMap;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;

use crate::broker::Level;

/// What matters of it.
pub(super) struct Facts {
    /// Changes with every start of the server.
    pub(super) run_id: String,
    pub(super) level: Level,
}

impl Facts {
    /// Reads them; fails when the server takes no messages.
    pub(super) async fn read(connection: &mut MultiplexedConnection) -> Result<Self, String> {
        let info = info(connection, &[]).await?;
        check_role(&info)?;
        let run_id = fact(&info, "run_id").ok_or("INFO names no run_id: is this Redis?")?.to_owned();
        // A user may lack the right to read it: then nothing is proved, and that is what is said.
        let settings: RedisResult<HashMap<String, String>> =
            redis::cmd("CONFIG").arg("GET").arg("append*").query_async(connection).await;
        let settings = settings.unwrap_or_default();
        let is = |name: &str, value: &str| settings.get(name).is_some_and(|set| set == value);
        let synced = is("appendonly", "yes") && is("appendfsync", "always");
        Ok(Self { run_id, level: if synced { Level::Fsync } else { Level::Broker } })
    }

    /// Whether the server is still one that takes messages: a master may become a replica, and keeps its connections.
    pub(super) async fn check(connection: &mut MultiplexedConnection) -> Result<(), String> {
        check_role(&info(connection, &["replication"]).await?)
    }
}

async fn info(connection: &mut MultiplexedConnection, part: &[&str]) -> Result<String, String> {
    let info: RedisResult<String> = redis::cmd("INFO").arg(part).query_async(connection).await;
    info.map_err(|error| format!("INFO was not answered: {error}"))
}

fn check_role(info: &str) -> Result<(), String> {
    match fact(info, "role") {
        Some("master") => Ok(()),
        role => Err(format!("the server is a {}, and takes no messages; name the master", role.unwrap_or("stranger"))),
    }
}

fn fact<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
