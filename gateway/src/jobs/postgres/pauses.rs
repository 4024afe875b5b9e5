//! Which consumers are paused.

use super::db::{Failed, Tx, int};

/// Lets consumers claim nothing. The time of the first pause is kept, for who looks into the table.
pub(super) async fn pause(tx: &Tx<'_>, consumers: &[String]) -> Result<(), Failed> {
    let sql = "insert into paused select name, $2 from unnest($1::text[]) as name on conflict do nothing";
    tx.execute(sql, &[&consumers, &int(tx.now)]).await?;
    Ok(())
}

/// Lets consumers claim again.
pub(super) async fn resume(tx: &Tx<'_>, consumers: &[String]) -> Result<(), Failed> {
    tx.execute("delete from paused where consumer = any($1)", &[&consumers]).await?;
    Ok(())
}

/// Whether a consumer is paused.
pub(super) async fn is_paused(tx: &Tx<'_>, consumer: &str) -> Result<bool, Failed> {
    Ok(!tx.query("select 1 from paused where consumer = $1", &[&consumer]).await?.is_empty())
}

/// The paused ones, by name.
pub(super) async fn paused(tx: &Tx<'_>) -> Result<Vec<String>, Failed> {
    let sql = "select consumer from paused order by consumer collate \"C\"";
    Ok(tx.query(sql, &[]).await?.iter().map(|row| row.get(0)).collect())
}
