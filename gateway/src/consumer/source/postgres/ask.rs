//! One question to the server: prepared, bound, fetched until a budget is spent.

use std::pin::pin;

use bytes::BytesMut;
use deadpool_postgres::{Client, Transaction};
use futures_util::TryStreamExt;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};
use tokio_postgres::{Row, Statement};

use super::super::Execution;
use super::super::encode::Rows;
use super::cells::{Kind, TooBig, Value};
use super::failed::Failed;
use super::named::{self, Numbered};
use crate::consumer::params::SqlValue;
use crate::jobs::results::RowSet;

/// Rows that the server sends at once: what is over a budget is not even sent, apart from the rest of these.
const FETCH_ROWS: u64 = 256;

/// Asks in a transaction of its own, which begins with `settings`.
pub(super) async fn read(client: &mut Client, execution: &Execution, settings: &str) -> Result<RowSet, Failed> {
    let numbered = named::number(&execution.sql);
    let values = values(&numbered, execution)?;
    let transaction = client.build_transaction().read_only(true).start().await?;
    transaction.batch_execute(settings).await?;
    let (plan, statement) = prepare(&transaction, &numbered).await?;
    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    let rows = fetch(&transaction, &statement, &values, &plan, execution).await?;
    transaction.rollback().await?;
    Ok(rows)
}

/// Prepares a query: as it is, to learn of its columns as they are at this moment, and then so that they can be read,
/// which is kept with the connection.
pub(super) async fn prepare(transaction: &Transaction<'_>, numbered: &Numbered) -> Result<(Plan, Statement), Failed> {
    if numbered.has_more {
        return Err(Failed::NotRead("it is more than one statement; write one SELECT".into()));
    }
    let plan = Plan::new(&transaction.prepare(&numbered.sql).await?, numbered)?;
    let statement = transaction.prepare_typed_cached(&plan.sql, &plan.params).await?;
    Ok((plan, statement))
}

/// Fetches until all is there, or a budget is spent.
async fn fetch(
    transaction: &Transaction<'_>,
    statement: &Statement,
    values: &[&(dyn ToSql + Sync)],
    plan: &Plan,
    execution: &Execution,
) -> Result<RowSet, Failed> {
    let portal = transaction.bind(statement, values).await?;
    let mut rows = Rows::new(plan.columns.clone(), execution.max_bytes);
    loop {
        // One more than may be kept tells that there are more.
        let wanted = FETCH_ROWS.min(execution.max_rows.saturating_sub(rows.len()).saturating_add(1));
        let mut page = pin!(transaction.query_portal_raw(&portal, wanted as i32).await?);
        let mut came = 0;
        while let Some(row) = page.try_next().await? {
            came += 1;
            let cells = plan.read(&row)?;
            if rows.len() == execution.max_rows || !rows.push(cells.into_iter()) {
                return Ok(rows.finish(true));
            }
        }
        if came < wanted {
            return Ok(rows.finish(false));
        }
    }
}

/// How a query is asked so that its values can be read.
pub(super) struct Plan {
    columns: Vec<String>,
    kinds: Vec<Kind>,
    sql: String,
    params: Vec<Type>,
}

impl Plan {
    fn new(statement: &Statement, numbered: &Numbered) -> Result<Self, Failed> {
        if statement.columns().is_empty() {
            return Err(Failed::NotRead("it gives no columns; write one SELECT".into()));
        }
        let kinds: Vec<_> = statement.columns().iter().map(|column| Kind::of(column.type_())).collect();
        // By position: two columns may have one name.
        let names: Vec<_> = (0..kinds.len()).map(|at| format!("c{at}")).collect();
        let expressions: Vec<_> =
            kinds.iter().zip(&names).map(|(kind, name)| kind.expression(&format!("q.{name}"))).collect();
        // A line of its own for what follows, since the query may end in a comment.
        let sql = format!("select {} from ({}\n) as q({})", expressions.join(", "), numbered.sql, names.join(", "));
        let columns = statement.columns().iter().map(|column| column.name().to_owned()).collect();
        Ok(Self { columns, kinds, sql, params: statement.params().to_vec() })
    }

    fn read<'a>(&self, row: &'a Row) -> Result<Vec<Value<'a>>, Failed> {
        let cell = |(at, kind): (usize, &Kind)| match kind.read(row, at)? {
            Ok(value) => Ok(value),
            Err(TooBig) => {
                let why = format!("a value of column `{}` is too big; ask for a part of it", self.columns[at]);
                Err(Failed::NotRead(why))
            }
        };
        self.kinds.iter().enumerate().map(cell).collect()
    }
}

fn values(numbered: &Numbered, execution: &Execution) -> Result<Vec<Text>, Failed> {
    let value = |name: &String| {
        let value = execution.values.iter().find(|(known, _)| known == name).map(|(_, value)| Text::new(value));
        value.ok_or_else(|| Failed::NotRead(format!("its parameter `{name}` is not declared")))
    };
    numbered.names.iter().map(value).collect()
}

/// A value as text: the server reads it as whatever type the query wants there.
#[derive(Debug)]
struct Text(String);

impl Text {
    fn new(value: &SqlValue) -> Self {
        Self(match value {
            SqlValue::Text(text) => text.clone(),
            SqlValue::Integer(n) => n.to_string(),
            SqlValue::Real(n) => n.to_string(),
        })
    }
}

impl ToSql for Text {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    fn to_sql_checked(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.to_sql(kind, out)
    }
}
