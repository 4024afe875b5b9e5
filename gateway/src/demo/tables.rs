//! The tables of the demo: their columns and types, and how a field of CSV becomes a value of SQLite.

use rusqlite::types::{Null, ToSqlOutput, Value, ValueRef};

/// One table: a CSV member of the archive, and what it becomes.
pub(super) struct Table {
    /// Its name in SQLite; the member is `NAME.csv`.
    pub(super) name: &'static str,
    /// Its columns in the order of the CSV.
    pub(super) columns: &'static [(&'static str, Kind)],
    /// What makes a row unique, if anything does.
    key: Option<&'static str>,
}

/// The type of a column.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Integer,
    Real,
    Text,
}

use Kind::{Integer, Real, Text};

/// All tables, small ones first.
pub(super) const TABLES: [Table; 5] = [
    Table { name: "airlines", columns: &[("carrier", Text), ("name", Text)], key: Some("carrier") },
    Table {
        name: "airports",
        columns: &[
            ("faa", Text),
            ("name", Text),
            ("lat", Real),
            ("lon", Real),
            ("alt", Integer),
            ("tz", Integer),
            ("dst", Text),
            ("tzone", Text),
        ],
        key: Some("faa"),
    },
    Table {
        name: "planes",
        columns: &[
            ("tailnum", Text),
            ("year", Integer),
            ("type", Text),
            ("manufacturer", Text),
            ("model", Text),
            ("engines", Integer),
            ("seats", Integer),
            ("speed", Integer),
            ("engine", Text),
        ],
        key: Some("tailnum"),
    },
    Table {
        name: "weather",
        columns: &[
            ("origin", Text),
            ("year", Integer),
            ("month", Integer),
            ("day", Integer),
            ("hour", Integer),
            ("temp", Real),
            ("dewp", Real),
            ("humid", Real),
            ("wind_dir", Integer),
            ("wind_speed", Real),
            ("wind_gust", Real),
            ("precip", Real),
            ("pressure", Real),
            ("visib", Real),
            ("time_hour", Text),
        ],
        key: Some("origin, time_hour"),
    },
    Table {
        name: "flights",
        columns: &[
            ("year", Integer),
            ("month", Integer),
            ("day", Integer),
            ("dep_time", Integer),
            ("sched_dep_time", Integer),
            ("dep_delay", Integer),
            ("arr_time", Integer),
            ("sched_arr_time", Integer),
            ("arr_delay", Integer),
            ("carrier", Text),
            ("flight", Integer),
            ("tailnum", Text),
            ("origin", Text),
            ("dest", Text),
            ("air_time", Integer),
            ("distance", Integer),
            ("hour", Integer),
            ("minute", Integer),
            ("time_hour", Text),
        ],
        key: None,
    },
];

/// What the named queries look flights up by, and the statistics the planner chooses with.
pub(super) const INDICES: &str = "
    CREATE INDEX flights_by_route ON flights (origin, dest);
    CREATE INDEX flights_by_carrier ON flights (carrier);
    CREATE INDEX flights_by_day ON flights (month, day);
    CREATE INDEX flights_by_plane ON flights (tailnum);
    ANALYZE;
";

impl Table {
    /// The statement that makes the table.
    pub(super) fn create(&self) -> String {
        let mut parts: Vec<String> =
            self.columns.iter().map(|(name, kind)| format!("{name} {}", kind.affinity())).collect();
        parts.extend(self.key.map(|key| format!("PRIMARY KEY ({key})")));
        let rowid = if self.key.is_some() { ", WITHOUT ROWID" } else { "" };
        format!("CREATE TABLE {} ({}) STRICT{rowid}", self.name, parts.join(", "))
    }

    /// The statement that adds one row.
    pub(super) fn insert(&self) -> String {
        format!("INSERT INTO {} VALUES ({})", self.name, vec!["?"; self.columns.len()].join(", "))
    }
}

impl Kind {
    fn affinity(self) -> &'static str {
        match self {
            Integer => "INTEGER",
            Real => "REAL",
            Text => "TEXT",
        }
    }

    /// The value of a field, or `None` if it is not of this type. The data write a missing value as `NA`.
    pub(super) fn value(self, field: &str) -> Option<ToSqlOutput<'_>> {
        if matches!(field, "NA" | "" | "\\N") {
            return Some(ToSqlOutput::from(Null));
        }
        match self {
            Integer => field.parse().ok().map(|n| ToSqlOutput::Owned(Value::Integer(n))),
            Real => field.parse().ok().map(|n| ToSqlOutput::Owned(Value::Real(n))),
            Text => Some(ToSqlOutput::Borrowed(ValueRef::Text(field.as_bytes()))),
        }
    }
}
