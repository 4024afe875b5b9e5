//! Rows by their key, and what has changed from some to others.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::value::RawValue;

/// Rows that a key tells apart, in their order. Each is a line of JSON, `["LAX",11]`; its key is the JSON of the
/// key's columns, `["LAX"]`.
#[derive(Debug, Default)]
pub(super) struct Keyed {
    rows: Vec<(Box<str>, Bytes)>,
    by_key: HashMap<Box<str>, usize>,
}

/// What makes other rows of some: first the deletions, then the rows that are new or have changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Diff {
    /// Whole rows, in their order.
    pub(super) upsert: Vec<Bytes>,
    /// Keys.
    pub(super) delete: Vec<Box<str>>,
}

impl Keyed {
    /// Reads the lines. `None` when the columns are no key of these rows: two have the same, or one has `null` in it.
    pub(super) fn read(ndjson: &Bytes, key: &[usize]) -> Option<Self> {
        let mut keyed = Self::default();
        for line in lines(ndjson) {
            let key = key_of(&line, key)?;
            if keyed.by_key.insert(key.clone(), keyed.rows.len()).is_some() {
                return None;
            }
            keyed.rows.push((key, line));
        }
        Some(keyed)
    }

    /// What makes these rows of earlier ones. Rows have no place in it: order alone is no difference.
    pub(super) fn since(&self, earlier: &Self) -> Diff {
        let is_new = |(key, row): &&(Box<str>, Bytes)| earlier.row(key) != Some(row);
        let is_gone = |(key, _): &&(Box<str>, Bytes)| self.row(key).is_none();
        Diff {
            upsert: self.rows.iter().filter(is_new).map(|(_, row)| row.clone()).collect(),
            delete: earlier.rows.iter().filter(is_gone).map(|(key, _)| key.clone()).collect(),
        }
    }

    fn row(&self, key: &str) -> Option<&Bytes> {
        self.by_key.get(key).map(|at| &self.rows[*at].1)
    }
}

impl Diff {
    pub(super) fn is_empty(&self) -> bool {
        self.upsert.is_empty() && self.delete.is_empty()
    }

    /// About as many bytes as it has when it is told.
    pub(super) fn bytes(&self) -> usize {
        let rows = self.upsert.iter().map(Bytes::len);
        rows.chain(self.delete.iter().map(|key| key.len())).map(|bytes| bytes + 1).sum()
    }
}

/// The lines of rows, without their ends.
pub(super) fn lines(ndjson: &Bytes) -> impl Iterator<Item = Bytes> {
    let lines = ndjson.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| ndjson.slice_ref(line))
}

fn key_of(line: &[u8], key: &[usize]) -> Option<Box<str>> {
    let cells: Vec<&RawValue> = serde_json::from_slice(line).ok()?;
    let mut text = String::from("[");
    for (at, column) in key.iter().enumerate() {
        let cell = cells.get(*column)?.get();
        if cell == "null" {
            return None;
        }
        text += if at > 0 { "," } else { "" };
        text += cell;
    }
    text.push(']');
    Some(text.into())
}
