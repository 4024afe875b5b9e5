//! The messages of live queries, as they are on the wire:
//!
//! ```text
//! {"type":"query.snapshot","query":"worst_routes","params":{"origin":"JFK"},"version":3,"digest":"9f86…",
//!  "columns":["dest","n"],"rows":[["LAX",11],["SFO",8]],"truncated":false}
//! {"type":"query.diff","query":"worst_routes","params":{"origin":"JFK"},"version":4,"since":3,"digest":"6030…",
//!  "upsert":[["LAX",12]],"delete":[["SFO"]]}
//! {"type":"query.error","query":"worst_routes","params":{"origin":"JFK"},"code":"source_unavailable","message":"…"}
//! ```

use std::fmt::Write;

use bytes::Bytes;
use groupcast_protocol::Message;

use super::known::{Failed, Known};
use super::question::Question;
use super::rows::{Diff, lines};
use crate::consumer::Failure;

/// All rows.
///
/// # Errors
/// When a value nests too deeply for a message.
pub(super) fn snapshot(
    question: &Question,
    version: u64,
    digest: &str,
    columns: &[String],
    ndjson: &Bytes,
    truncated: bool,
) -> Result<Message, Failure> {
    let mut text = head("snapshot", question, ndjson.len());
    let columns = json(&columns);
    write!(text, r#","version":{version},"digest":"{digest}","columns":{columns},"rows":["#).expect(GROWS);
    put_list(&mut text, lines(ndjson));
    write!(text, r#"],"truncated":{truncated}}}"#).expect(GROWS);
    message(text)
}

/// What has changed since the version before.
///
/// # Errors
/// As [`snapshot`].
pub(super) fn diff(question: &Question, known: &Known, since: u64, diff: &Diff) -> Result<Message, Failure> {
    let mut text = head("diff", question, diff.bytes());
    let Known { version, digest, .. } = known;
    write!(text, r#","version":{version},"since":{since},"digest":"{digest}","upsert":["#).expect(GROWS);
    put_list(&mut text, diff.upsert.iter());
    text += r#"],"delete":["#;
    put_list(&mut text, diff.delete.iter().map(|key| key.as_bytes()));
    text += "]}";
    message(text)
}

/// Why there are no newer rows.
pub(super) fn error(question: &Question, failed: &Failed) -> Message {
    let mut text = head("error", question, 0);
    let (code, why) = (json(&failed.code), json(&failed.message));
    write!(text, r#","code":{code},"message":{why}}}"#).expect(GROWS);
    message(text).expect("names, texts and checked parameters are an object that nests no deeper than they")
}

/// Room for the fields beside the rows.
const HEAD_BYTES: usize = 256;
const GROWS: &str = "a string grows";

/// Everything up to the parameters. The name of a query needs no escapes.
fn head(kind: &str, question: &Question, rows_bytes: usize) -> String {
    let mut text = String::with_capacity(HEAD_BYTES + question.params.len() + rows_bytes);
    let (name, params) = (question.name(), &question.params);
    write!(text, r#"{{"type":"query.{kind}","query":"{name}","params":{params}"#).expect(GROWS);
    text
}

fn put_list(text: &mut String, items: impl Iterator<Item = impl AsRef<[u8]>>) {
    for (at, item) in items.enumerate() {
        *text += if at > 0 { "," } else { "" };
        *text += &String::from_utf8_lossy(item.as_ref());
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("texts are always JSON")
}

fn message(text: String) -> Result<Message, Failure> {
    Message::parse(text.into()).map_err(|error| Failure::permanent("bad_result", error.to_string()))
}
