//! Writes one JSON object, field by field, without building a tree.

use bytes::{BufMut, Bytes};
use serde::Serialize;

use super::request_id::RequestId;

/// An object that begins with `type` and, in an answer, `id`.
pub(super) struct Object(Vec<u8>);

impl Object {
    pub(super) fn new(kind: &'static str, id: Option<&RequestId>) -> Self {
        let object = Self(Vec::with_capacity(128)).raw("{\"type\":\"", kind.as_bytes()).text("\"");
        match id {
            Some(id) => object.raw(",\"id\":", id.as_json().as_bytes()),
            None => object,
        }
    }

    /// A field whose value serde writes.
    pub(super) fn field(self, name: &'static str, value: &impl Serialize) -> Self {
        let mut object = self.text(",\"").text(name).text("\":");
        serde_json::to_writer((&mut object.0).writer(), value).expect("strings, numbers and lists of them are JSON");
        object
    }

    /// A field that is left out when there is no value.
    pub(super) fn optional(self, name: &'static str, value: Option<&impl Serialize>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// A field whose value is JSON already.
    pub(super) fn json(self, name: &'static str, value: &[u8]) -> Self {
        self.text(",\"").text(name).raw("\":", value)
    }

    /// All fields of a value that serde writes as a non-empty object.
    pub(super) fn fields_of(mut self, value: &impl Serialize) -> Self {
        let start = self.0.len();
        serde_json::to_writer((&mut self.0).writer(), value).expect("strings, numbers and lists of them are JSON");
        self.0[start] = b',';
        self.0.pop();
        self
    }

    pub(super) fn finish(self) -> Bytes {
        self.text("}").0.into()
    }

    fn text(mut self, text: &str) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn raw(self, before: &str, value: &[u8]) -> Self {
        let mut object = self.text(before);
        object.0.extend_from_slice(value);
        object
    }
}
