//! Rows of a result in the forms that a client may ask for. The values pass through as the JSON they are.

#[cfg(feature = "arrow")]
pub(super) mod arrow;

use bytes::Bytes;
use serde_json::value::RawValue;

/// Stored rows: names of columns, and one JSON array a line.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    pub(super) columns: &'a [String],
    pub(super) ndjson: &'a [u8],
    pub(super) row_count: u64,
    pub(super) truncated: bool,
}

/// A row that is not the array it was stored as.
#[derive(Debug, thiserror::Error)]
#[error("a stored row is damaged; run the job again")]
pub(super) struct DamagedRow;

impl Rows<'_> {
    /// `{"columns":[…],"rows":[[…],…],"row_count":n,"truncated":false}`.
    pub(super) fn json(&self) -> Bytes {
        let columns = serde_json::to_string(self.columns).expect("texts are always JSON");
        let mut out = Vec::with_capacity(self.ndjson.len() + columns.len() + 80);
        out.extend_from_slice(b"{\"columns\":");
        out.extend_from_slice(columns.as_bytes());
        out.extend_from_slice(b",\"rows\":[");
        for (at, line) in self.lines().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(line);
        }
        out.extend_from_slice(
            format!("],\"row_count\":{},\"truncated\":{}}}", self.row_count, self.truncated).as_bytes(),
        );
        out.into()
    }

    /// One object a line, keyed by column.
    pub(super) fn ndjson_objects(&self) -> Result<Bytes, DamagedRow> {
        let keys: Vec<String> =
            self.columns.iter().map(|name| serde_json::to_string(name).expect("a text is always JSON")).collect();
        let mut out = Vec::with_capacity(self.ndjson.len() * 2);
        for line in self.lines() {
            for (at, (key, value)) in keys.iter().zip(cells(line)?).enumerate() {
                out.push(if at == 0 { b'{' } else { b',' });
                out.extend_from_slice(key.as_bytes());
                out.push(b':');
                out.extend_from_slice(value.get().as_bytes());
            }
            out.extend_from_slice(if keys.is_empty() { b"{}\n" } else { b"}\n" });
        }
        Ok(out.into())
    }

    /// RFC 4180, with a header line; `null` is an empty field.
    pub(super) fn csv(&self) -> Result<Bytes, DamagedRow> {
        let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
        let never = "writing to memory does not fail, and every row has as many fields as there are columns";
        writer.write_record(self.columns).expect(never);
        for line in self.lines() {
            let fields: Vec<String> = cells(line)?.into_iter().map(field).collect();
            if fields.len() != self.columns.len() {
                return Err(DamagedRow);
            }
            writer.write_record(fields).expect(never);
        }
        Ok(writer.into_inner().expect(never).into())
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.ndjson.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
    }
}

fn cells(line: &[u8]) -> Result<Vec<&RawValue>, DamagedRow> {
    serde_json::from_slice(line).map_err(|_| DamagedRow)
}

fn field(value: &RawValue) -> String {
    match value.get() {
        "null" => String::new(),
        text if text.starts_with('"') => serde_json::from_str(text).unwrap_or_else(|_| text.to_owned()),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows<'a>(columns: &'a [String], ndjson: &'a str) -> Rows<'a> {
        Rows { columns, ndjson: ndjson.as_bytes(), row_count: 9, truncated: true }
    }

    #[test]
    fn every_form_has_the_same_values() {
        let columns = ["a".to_owned(), "b \"x\"".to_owned()];
        let rows = rows(&columns, "[1.0,\"q\\\"u,o\\n\"]\n[null,true]\n");
        let json =
            r#"{"columns":["a","b \"x\""],"rows":[[1.0,"q\"u,o\n"],[null,true]],"row_count":9,"truncated":true}"#;
        assert_eq!(rows.json(), json);
        let lines = "{\"a\":1.0,\"b \\\"x\\\"\":\"q\\\"u,o\\n\"}\n{\"a\":null,\"b \\\"x\\\"\":true}\n";
        assert_eq!(rows.ndjson_objects().expect("whole"), lines);
        assert_eq!(rows.csv().expect("whole"), "a,\"b \"\"x\"\"\"\r\n1.0,\"q\"\"u,o\n\"\r\n,true\r\n");
    }

    #[test]
    fn no_rows_are_fine_and_damaged_ones_are_told() {
        let columns = ["a".to_owned()];
        assert_eq!(rows(&columns, "").json(), r#"{"columns":["a"],"rows":[],"row_count":9,"truncated":true}"#);
        assert_eq!(rows(&columns, "").csv().expect("whole"), "a\r\n");
        assert!(rows(&columns, "[1").ndjson_objects().is_err());
        assert!(rows(&columns, "[1,2]\n").csv().is_err());
    }
}
