//! `ShareKey`: what makes two asks identical, so that one execution may answer both.

use sha2::{Digest, Sha256};

use super::ask::{Format, Question};
use super::params::{Bound, SqlValue};
use super::queries::Query;
use crate::config::consumer::{Durability, Run};
use crate::jobs::results::hex;

/// SHA-256, in hexadecimal, of everything that what comes out depends on, and of who may see it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ShareKey(String);

/// Whose rows they are. What one asker may see is never shared with one of another scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Who may ask may see the same: what a query shows of one user alone it binds as a parameter (`claim_params`), and
    /// parameters are part of the key.
    Everybody,
}

/// What is done with the rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    pub(crate) run: Run,
    pub(crate) format: Format,
    /// Of the job: what is stored for several must be as safe as each was told.
    pub(crate) durability: Durability,
}

impl ShareKey {
    /// The key of an ask. The query's version is its SQL: of another text the rows may be others.
    pub(crate) fn new(question: &Question, bound: &Bound, usage: Use, scope: Scope) -> Self {
        let Query { config, sql, .. } = &*question.query;
        let mut hash = Fields(Sha256::new());
        hash.field(match scope {
            Scope::Everybody => b"everybody",
        });
        hash.field(match usage.run {
            Run::Query => b"query",
            Run::Report => b"report",
            Run::Http => b"http",
            Run::Embedded => b"embedded",
        });
        hash.field(match usage.format {
            Format::Html => b"html",
            Format::Csv => b"csv",
        });
        hash.field(match usage.durability {
            Durability::Memory => b"memory",
            Durability::Os => b"os",
            Durability::Disk => b"disk",
        });
        hash.field(config.name.as_bytes());
        hash.field(sql.as_bytes());
        hash.field(&question.limit.unwrap_or(u64::MAX).to_be_bytes());
        for (name, value) in bound {
            hash.field(name.as_bytes());
            match value {
                SqlValue::Text(text) => hash.field(text.as_bytes()),
                SqlValue::Integer(n) => hash.field(&n.to_be_bytes()),
                SqlValue::Real(n) => hash.field(&n.to_bits().to_be_bytes()),
            }
        }
        Self(hex(&hash.0.finalize()))
    }

    /// The key as jobs carry it.
    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

/// Each field with its length before it, so that what ends one cannot pass for the beginning of the next.
struct Fields(Sha256);

impl Fields {
    fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use super::*;
    use crate::config::query::{QueryConfig, SourceConfig};
    use crate::consumer::params::Given;
    use crate::consumer::queries::Queries;

    const USE: Use = Use { run: Run::Query, format: Format::Html, durability: Durability::Disk };

    #[test]
    fn whatever_the_outcome_depends_on_makes_another_key() {
        let asks = [
            key("select :a, :b", r#"{"a":"x","b":"y"}"#, None, USE),
            key("select :a, :b ", r#"{"a":"x","b":"y"}"#, None, USE),
            key("select :a, :b", r#"{"a":"xb","b":"y"}"#, None, USE),
            key("select :a, :b", r#"{"a":"y","b":"x"}"#, None, USE),
            key("select :a, :b", r#"{"a":"x","b":"y"}"#, Some(10), USE),
            key("select :a, :b", r#"{"a":"x","b":"y"}"#, None, Use { durability: Durability::Os, ..USE }),
            key("select :a, :b", r#"{"a":"x","b":"y"}"#, None, Use { run: Run::Report, ..USE }),
            key("select :a, :b", r#"{"a":"x","b":"y"}"#, None, Use { format: Format::Csv, ..USE }),
        ];
        assert_eq!(asks.iter().collect::<HashSet<_>>().len(), asks.len());
    }

    #[test]
    fn what_means_the_same_is_the_same() {
        let written = key("select :a, :b", r#"{"b":"y","a":"\u0078"}"#, None, USE);
        assert_eq!(written, key("select :a, :b", r#"{ "a": "x" , "b":"y"}"#, None, USE));
        assert_eq!(written, key("select :a, :b", r#"{"b":"y"}"#, None, USE), "a default is a value");
    }

    fn key(sql: &str, params: &str, limit: Option<u64>, usage: Use) -> ShareKey {
        let source: SourceConfig = toml::from_str("kind = 'sqlite'\npath = 'x.db'").expect("a source");
        let config: QueryConfig = toml::from_str(&format!(
            "id = 1\nname = 'q'\nsource = 's'\nsql = '{sql}'\nparams.a = {{ type = 'text', default = 'x' }}\n\
             params.b = {{ type = 'text' }}"
        ))
        .expect("a query");
        let queries = Queries::new(&[("s".to_owned(), source)].into(), &[config]).expect("valid");
        let params: Given = serde_json::from_str(params).expect("parameters");
        let query = Arc::clone(queries.by_name("q").expect("there"));
        let bound = query.bind(&params).expect("good parameters");
        ShareKey::new(&Question { query, params, limit, max_stale: None }, &bound, usage, Scope::Everybody)
    }
}
