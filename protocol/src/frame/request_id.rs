//! The `id` by which a client recognises the answer to its command.

use serde_json::value::RawValue;

use super::fields::{FieldError, JsonKind};

/// The most bytes of JSON text an `id` may have; it is kept and repeated, so it is bounded.
pub const REQUEST_ID_BYTES_MAX: usize = 255;

/// An integer or a string, kept as its JSON text so that the answer repeats it to the letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// The id as JSON.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    pub(super) fn read(raw: &RawValue) -> Result<Self, FieldError> {
        let text = raw.get();
        let needed = "an integer or a string";
        match JsonKind::of(text) {
            JsonKind::String => {}
            JsonKind::Number if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => {}
            found => return Err(FieldError::WrongType { field: "id", needed, found }),
        }
        if text.len() > REQUEST_ID_BYTES_MAX {
            let why = format!("it has {} bytes, at most {REQUEST_ID_BYTES_MAX} are allowed", text.len());
            return Err(FieldError::Invalid { field: "id", why });
        }
        Ok(Self(text.into()))
    }
}

impl From<u64> for RequestId {
    fn from(id: u64) -> Self {
        Self(id.to_string().into())
    }
}

impl From<&str> for RequestId {
    fn from(id: &str) -> Self {
        Self(serde_json::Value::from(id).to_string().into())
    }
}
