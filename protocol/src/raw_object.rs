//! A JSON object that passes through as bytes: the parameters of a query.

use bytes::Bytes;

use crate::message::{DEPTH_MAX, depth_exceeds, trim};

/// A JSON object, checked for syntax and depth, with its text as it came in.
///
/// Cheap to clone. What the fields mean is for the query that they belong to.
#[derive(Clone, PartialEq, Eq)]
pub struct RawObject(Bytes);

/// Why bytes are not a JSON object.
#[derive(Debug, thiserror::Error)]
pub enum RawObjectError {
    /// Not UTF-8.
    #[error("it is not UTF-8; encode it as UTF-8 JSON")]
    NotUtf8,
    /// JSON perhaps, but not an object.
    #[error("it is not a JSON object; send one, as in {{\"origin\":\"JFK\"}}")]
    NotAnObject,
    /// Not JSON.
    #[error("it is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Nested more deeply than [`DEPTH_MAX`].
    #[error("it nests deeper than {DEPTH_MAX} levels; flatten it")]
    TooDeep,
}

impl RawObject {
    /// The object without fields.
    pub const EMPTY: Self = Self(Bytes::from_static(b"{}"));

    /// Checks bytes that came from outside.
    ///
    /// # Errors
    /// When the bytes are not one JSON object, or nest too deeply.
    pub fn parse(raw: Bytes) -> Result<Self, RawObjectError> {
        let raw = trim(raw);
        let text = std::str::from_utf8(&raw).map_err(|_| RawObjectError::NotUtf8)?;
        if !text.starts_with('{') {
            return Err(RawObjectError::NotAnObject);
        }
        if depth_exceeds(&raw, DEPTH_MAX) {
            return Err(RawObjectError::TooDeep);
        }
        serde_json::from_str::<serde::de::IgnoredAny>(text)?;
        Ok(Self(raw))
    }

    /// The JSON text as bytes.
    pub fn raw(&self) -> &Bytes {
        &self.0
    }

    /// The JSON text as a string.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("parse() accepted only UTF-8")
    }

    /// Whether the text is exactly `{}`.
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }
}

impl Default for RawObject {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl std::fmt::Debug for RawObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_passes_untouched() {
        let raw = Bytes::from_static(b" {\"b\": 1, \"a\":[]}\n");
        assert_eq!(RawObject::parse(raw).expect("valid").as_str(), "{\"b\": 1, \"a\":[]}");
    }

    #[test]
    fn other_values_are_refused() {
        let parse = |text: &str| RawObject::parse(Bytes::copy_from_slice(text.as_bytes()));
        for text in ["", "null", "[]", "7"] {
            assert!(matches!(parse(text), Err(RawObjectError::NotAnObject)), "{text}");
        }
        for text in ["{", "{}{}", "{\"a\"}", "{\"a\":1,}"] {
            assert!(matches!(parse(text), Err(RawObjectError::Json(_))), "{text}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        assert!(matches!(parse(&deep), Err(RawObjectError::TooDeep)));
    }
}
