//! The tables of a run on a server: what is in them, and their end.

use super::files::Stored;
use crate::config::hidden::Hidden;

/// All jobs of a schema, after the gateways have ended.
///
/// # Errors
/// When they cannot be read.
#[cfg(feature = "postgres")]
pub(super) async fn jobs(url: &Hidden, schema: &str) -> Result<Vec<Stored>, String> {
    let sql = format!(
        "select replace(id::text, '-', ''), message, state::bigint, attempt, max_attempts, crashes, error_code
         from \"{schema}\".job"
    );
    let number = |row: &tokio_postgres::Row, at: usize| u64::try_from(row.get::<_, i64>(at)).unwrap_or(u64::MAX);
    let rows = ask(url, &sql).await?;
    let stored = rows.iter().map(|row| {
        let id = u128::from_str_radix(row.get(0), 16).map_err(|_| "a stored job has no id".to_owned())?;
        Ok(Stored {
            id: groupcast_protocol::JobId::from_bytes(id.to_be_bytes()).to_string(),
            message: row.get(1),
            has_ended: number(row, 2) > 2,
            attempt: number(row, 3),
            max_attempts: number(row, 4),
            crashes: number(row, 5),
            error: row.get(6),
        })
    });
    stored.collect()
}

/// Removes a schema with all that is in it.
///
/// # Errors
/// When that is refused.
#[cfg(feature = "postgres")]
pub(super) async fn remove(url: &Hidden, schema: &str) -> Result<(), String> {
    ask(url, &format!("drop schema if exists \"{schema}\" cascade")).await.map(drop)
}

#[cfg(feature = "postgres")]
async fn ask(url: &Hidden, sql: &str) -> Result<Vec<tokio_postgres::Row>, String> {
    /// Tens of thousands of jobs are read at once.
    const DEADLINE: std::time::Duration = std::time::Duration::from_secs(120);
    let asked = async {
        let address: crate::postgres::Address = url.expose().parse().map_err(|error| format!("--url {error}"))?;
        let (config, tls) = address.connector().map_err(|error| error.to_string())?;
        let failed = |error: tokio_postgres::Error| format!("{} cannot be asked: {error}", address.shown());
        let (client, connection) = config.connect(tls).await.map_err(failed)?;
        // Ends when the client is dropped.
        tokio::spawn(connection);
        client.query(sql, &[]).await.map_err(failed)
    };
    tokio::time::timeout(DEADLINE, asked).await.map_err(|_| "the server does not answer".to_owned())?
}

/// Not in this program, whose arguments name no server.
#[cfg(not(feature = "postgres"))]
pub(super) async fn jobs(_: &Hidden, _: &str) -> Result<Vec<Stored>, String> {
    Err("this program is built without the feature `postgres`".to_owned())
}

/// Not in this program, whose arguments name no server.
#[cfg(not(feature = "postgres"))]
pub(super) async fn remove(_: &Hidden, _: &str) -> Result<(), String> {
    Err("this program is built without the feature `postgres`".to_owned())
}
