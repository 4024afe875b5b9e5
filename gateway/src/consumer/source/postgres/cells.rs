//! What a column's values are in a row of JSON, and how PostgreSQL is asked for them.

use std::io::Write;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::consumer::source::encode::Cell;

/// The largest value, in characters, as of a SQLite source: what is larger is not fetched.
const VALUE_CHARS_MAX: usize = 16 << 20;

/// A kind of column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Text,
    /// Hexadecimal text.
    Bytes,
    /// A number with all of its digits; `null` if it is none of JSON's.
    Numeric,
    /// Whatever else, as `to_json` writes it: times, uuid, arrays, ranges, rows, JSON itself.
    Json,
}

/// One value.
pub(super) enum Value<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Real(f64),
    Text(&'a str),
    Json(&'a str),
}

/// A value that is larger than any may be.
pub(super) struct TooBig;

impl Kind {
    pub(super) fn of(kind: &Type) -> Self {
        match *kind {
            Type::BOOL => Self::Boolean,
            Type::INT2 => Self::Int2,
            Type::INT4 => Self::Int4,
            Type::INT8 => Self::Int8,
            Type::OID => Self::Oid,
            Type::FLOAT4 => Self::Float4,
            Type::FLOAT8 => Self::Float8,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN => Self::Text,
            Type::BYTEA => Self::Bytes,
            Type::NUMERIC => Self::Numeric,
            _ => Self::Json,
        }
    }

    /// What gives a column's values as [`Kind::read`] takes them.
    pub(super) fn expression(self, column: &str) -> String {
        let text = match self {
            Self::Boolean | Self::Int2 | Self::Int4 | Self::Int8 | Self::Oid | Self::Float4 | Self::Float8 => {
                return column.to_owned();
            }
            Self::Text | Self::Numeric => format!("{column}::text"),
            Self::Bytes => format!("encode({column}, 'hex')"),
            Self::Json => format!("to_json({column})::text"),
        };
        format!("left({text}, {})", VALUE_CHARS_MAX + 1)
    }

    /// A value of a row.
    pub(super) fn read(self, row: &Row, at: usize) -> Result<Result<Value<'_>, TooBig>, tokio_postgres::Error> {
        let whole = |n: Option<i64>| n.map_or(Value::Null, Value::Integer);
        let real = |n: Option<f64>| n.map_or(Value::Null, Value::Real);
        Ok(Ok(match self {
            Self::Boolean => row.try_get::<_, Option<bool>>(at)?.map_or(Value::Null, Value::Boolean),
            Self::Int2 => whole(row.try_get::<_, Option<i16>>(at)?.map(i64::from)),
            Self::Int4 => whole(row.try_get::<_, Option<i32>>(at)?.map(i64::from)),
            Self::Int8 => whole(row.try_get(at)?),
            Self::Oid => whole(row.try_get::<_, Option<u32>>(at)?.map(i64::from)),
            // Its shortest text, which is not that of the double it would become.
            Self::Float4 => real(row.try_get::<_, Option<f32>>(at)?.map(|n| n.to_string().parse().unwrap_or(f64::NAN))),
            Self::Float8 => real(row.try_get(at)?),
            Self::Text | Self::Bytes | Self::Numeric | Self::Json => {
                let Some(text) = row.try_get::<_, Option<&str>>(at)? else { return Ok(Ok(Value::Null)) };
                if text.len() > VALUE_CHARS_MAX && text.chars().nth(VALUE_CHARS_MAX).is_some() {
                    return Ok(Err(TooBig));
                }
                match self {
                    Self::Json => Value::Json(text),
                    Self::Numeric if text.starts_with(|c: char| c.is_ascii_alphabetic()) || text.starts_with("-I") => {
                        Value::Null
                    }
                    Self::Numeric => Value::Json(text),
                    _ => Value::Text(text),
                }
            }
        }))
    }
}

impl Cell for Value<'_> {
    fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Boolean(yes) => write!(out, "{yes}").expect("a vector grows"),
            Self::Integer(n) => write!(out, "{n}").expect("a vector grows"),
            Self::Real(n) => serde_json::to_writer(out, &n).expect("a vector grows"),
            Self::Text(text) => serde_json::to_writer(out, text).expect("a vector grows"),
            // A line is a row. Inside of JSON a raw line break can only stand between its parts.
            Self::Json(json) => out.extend(json.bytes().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { b })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_on_one_line() {
        let mut out = Vec::new();
        for value in [
            Value::Null,
            Value::Boolean(true),
            Value::Integer(i64::MIN),
            Value::Real(0.1),
            Value::Real(f64::INFINITY),
            Value::Text("a\"\n"),
            Value::Json("{\"a\":\n[1.50,\r\n\"x\\n\"]}"),
        ] {
            value.put(&mut out);
            out.push(b'|');
        }
        let expected = "null|true|-9223372036854775808|0.1|null|\"a\\\"\\n\"|{\"a\": [1.50,  \"x\\n\"]}|";
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }
}
