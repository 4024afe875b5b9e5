//! Rows as JSON text, straight from a database's values: no tree in between.

use std::io::Write;

use bytes::Bytes;
use rusqlite::types::ValueRef;

use crate::jobs::results::{Chunk, RowSet};

/// A chunk is closed when it has this many bytes: a page of a result is read without the others.
const CHUNK_BYTES: usize = 64 << 10;

/// One value of a row.
pub(super) trait Cell {
    /// Adds it as JSON, without a line break.
    fn put(self, out: &mut Vec<u8>);
}

/// Collects rows within a budget.
pub(super) struct Rows {
    set: RowSet,
    chunk: Vec<u8>,
    chunk_rows: u64,
    rows: u64,
    bytes_left: usize,
}

impl Rows {
    /// Nothing yet; at most `max_bytes` of text.
    pub(super) fn new(columns: Vec<String>, max_bytes: usize) -> Self {
        let set = RowSet { columns, ..RowSet::default() };
        Self { set, chunk: Vec::new(), chunk_rows: 0, rows: 0, bytes_left: max_bytes }
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> u64 {
        self.rows
    }

    /// Adds a row. `false`: it is more than the budget allows, and was not added.
    pub(super) fn push(&mut self, values: impl Iterator<Item = impl Cell>) -> bool {
        let start = self.chunk.len();
        self.chunk.push(b'[');
        for (at, value) in values.enumerate() {
            if at > 0 {
                self.chunk.push(b',');
            }
            value.put(&mut self.chunk);
        }
        self.chunk.extend_from_slice(b"]\n");
        let bytes = self.chunk.len() - start;
        if bytes > self.bytes_left {
            self.chunk.truncate(start);
            return false;
        }
        self.bytes_left -= bytes;
        self.chunk_rows += 1;
        self.rows += 1;
        if self.chunk.len() >= CHUNK_BYTES {
            self.close_chunk();
        }
        true
    }

    /// The rows.
    pub(super) fn finish(mut self, truncated: bool) -> RowSet {
        self.close_chunk();
        self.set.truncated = truncated;
        self.set
    }

    fn close_chunk(&mut self) {
        if self.chunk_rows > 0 {
            let ndjson = Bytes::from(std::mem::take(&mut self.chunk));
            let first_row = self.rows - self.chunk_rows;
            self.set.chunks.push(Chunk { first_row, rows: std::mem::take(&mut self.chunk_rows), ndjson });
        }
    }
}

/// Numbers that JSON does not have become `null`, blobs hexadecimal text, broken UTF-8 is replaced.
impl Cell for ValueRef<'_> {
    fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Integer(n) => write!(out, "{n}").expect("a vector grows"),
            Self::Real(n) => serde_json::to_writer(out, &n).expect("a vector grows"),
            Self::Text(text) => {
                let text = String::from_utf8_lossy(text);
                serde_json::to_writer(out, &*text).expect("a vector grows");
            }
            Self::Blob(blob) => {
                out.push(b'"');
                out.extend_from_slice(crate::jobs::results::hex(blob).as_bytes());
                out.push(b'"');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_json() {
        let mut rows = Rows::new(vec!["a".into()], 1000);
        let values = [
            ValueRef::Null,
            ValueRef::Integer(i64::MIN),
            ValueRef::Real(1.5),
            ValueRef::Real(3.0),
            ValueRef::Real(f64::NAN),
            ValueRef::Real(f64::INFINITY),
            ValueRef::Text(b"a\"\\\n\xc3\xa9\xff"),
            ValueRef::Blob(&[0, 255]),
        ];
        assert!(rows.push(values.into_iter()));
        let set = rows.finish(false);
        let expected = "[null,-9223372036854775808,1.5,3.0,null,null,\"a\\\"\\\\\\né\u{fffd}\",\"00ff\"]\n";
        assert_eq!(set.chunks[0].ndjson, expected.as_bytes());
        serde_json::from_slice::<Vec<serde_json::Value>>(&set.chunks[0].ndjson).expect("it is JSON");
    }

    #[test]
    fn the_budget_is_kept_to_the_byte() {
        let mut rows = Rows::new(vec!["a".into()], 8);
        assert!(rows.push([ValueRef::Integer(1)].into_iter()));
        assert!(rows.push([ValueRef::Integer(2)].into_iter()));
        assert!(!rows.push([ValueRef::Integer(3)].into_iter()));
        let set = rows.finish(true);
        assert_eq!((set.row_count(), set.bytes(), set.truncated), (2, 8, true));
    }

    #[test]
    fn chunks_are_closed_when_they_are_large() {
        let mut rows = Rows::new(vec!["a".into()], usize::MAX);
        let text = "x".repeat(40_000);
        for _ in 0..5 {
            assert!(rows.push([ValueRef::Text(text.as_bytes())].into_iter()));
        }
        let set = rows.finish(false);
        assert_eq!(set.chunks.iter().map(|c| (c.first_row, c.rows)).collect::<Vec<_>>(), [(0, 2), (2, 2), (4, 1)]);
    }
}
