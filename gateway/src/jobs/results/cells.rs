//! Rows as they are stored, read again cell by cell; and as CSV.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// `null`.
    Null,
    /// A number, as it was written.
    Number(&'a str),
    /// A text.
    Text(Cow<'a, str>),
    /// `true`, `false`, or something nested, as JSON.
    Json(&'a str),
}

/// The cells of a line `[1,"JFK",null]`. Empty if the line is not an array.
pub fn cells(line: &[u8]) -> Vec<Cell<'_>> {
    let raw: Vec<&RawValue> = serde_json::from_slice(line).unwrap_or_default();
    raw.into_iter().map(|value| cell(value.get())).collect()
}

fn cell(json: &str) -> Cell<'_> {
    match json.as_bytes().first() {
        Some(b'n') => Cell::Null,
        Some(b'-' | b'0'..=b'9') => Cell::Number(json),
        Some(b'"') if !json.contains('\\') => Cell::Text(Cow::Borrowed(&json[1..json.len() - 1])),
        Some(b'"') => Cell::Text(Cow::Owned(serde_json::from_str(json).unwrap_or_default())),
        _ => Cell::Json(json),
    }
}

impl Cell<'_> {
    /// The value as people read it; nothing for `null`.
    pub fn text(&self) -> &str {
        match self {
            Self::Null => "",
            Self::Number(text) | Self::Json(text) => text,
            Self::Text(text) => text,
        }
    }
}

/// Stored rows as CSV (RFC 4180, with a header, lines ended by CRLF). A `null` is an empty field.
pub fn csv(columns: &[String], ndjson: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ndjson.len() + 64);
    csv_line(&mut out, columns.iter().map(String::as_str));
    for line in ndjson.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        csv_line(&mut out, cells(line).iter().map(Cell::text));
    }
    out
}

/// Adds one line of CSV.
pub fn csv_line<'a>(out: &mut Vec<u8>, fields: impl Iterator<Item = &'a str>) {
    for (at, field) in fields.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        if field.contains([',', '"', '\n', '\r']) {
            out.push(b'"');
            out.extend_from_slice(field.replace('"', "\"\"").as_bytes());
            out.push(b'"');
        } else {
            out.extend_from_slice(field.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_what_was_stored() {
        let line = br#"[1,-2.5e3,"a","b\"\u00e9",null,true,[1]]"#;
        let expected = [
            Cell::Number("1"),
            Cell::Number("-2.5e3"),
            Cell::Text("a".into()),
            Cell::Text("b\"é".into()),
            Cell::Null,
            Cell::Json("true"),
            Cell::Json("[1]"),
        ];
        assert_eq!(cells(line), expected);
        assert_eq!(cells(b"not json"), []);
    }

    #[test]
    fn csv_reads_back_with_another_reader() {
        let columns = ["plain".to_owned(), "with,comma".to_owned()];
        let ndjson = b"[1,\"say \\\"hi\\\"\"]\n[null,\"two\\nlines\"]\n";
        let text = csv(&columns, ndjson);
        let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(&text[..]);
        let rows: Vec<Vec<String>> =
            reader.records().map(|row| row.expect("valid").iter().map(str::to_owned).collect()).collect();
        assert_eq!(rows, [["plain", "with,comma"], ["1", "say \"hi\""], ["", "two\nlines"]]);
    }
}
