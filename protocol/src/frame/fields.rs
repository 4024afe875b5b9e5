//! Reads the fields of one JSON object by name, each with an error that says which field and what it should be.
//!
//! Values stay raw until they are asked for. (serde's tagged and flattened forms cannot carry raw values, and their
//! errors name no field.)

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::envelope::Position;

/// Why an object is not the frame it should be.
#[derive(Debug, thiserror::Error)]
pub enum FieldError {
    /// Not a JSON object.
    #[error("the frame is not a JSON object; send one object with a string `type` in each text message")]
    NotAnObject,
    /// Not JSON.
    #[error("the frame is not valid JSON: {0}")]
    Json(serde_json::Error),
    /// A field that has to be there is not.
    #[error("the field `{field}` is missing; it has to be {needed}")]
    Missing {
        /// Its name.
        field: &'static str,
        /// What it has to be.
        needed: &'static str,
    },
    /// A field has a value of another type.
    #[error("the field `{field}` is {found}; it has to be {needed}")]
    WrongType {
        /// Its name.
        field: &'static str,
        /// What it has to be.
        needed: &'static str,
        /// What it is.
        found: JsonKind,
    },
    /// A field has the right type and a value that cannot be.
    #[error("the field `{field}` cannot be used: {why}")]
    Invalid {
        /// Its name.
        field: &'static str,
        /// The reason, and what to do.
        why: String,
    },
    /// A field is there twice.
    #[error("the field `{field}` is there twice; send it once")]
    Twice {
        /// Its name.
        field: &'static str,
    },
}

/// The type of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonKind {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean,
    /// Any number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl JsonKind {
    /// The type of the value that a valid JSON text without leading white space holds.
    pub(super) fn of(text: &str) -> Self {
        match text.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'"') => Self::String,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            _ => Self::Number,
        }
    }
}

impl fmt::Display for JsonKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}

/// The fields of an object, in their order.
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, FieldError> {
        // serde would take an array for a struct; a map it does not, but the error would not say what to do.
        if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
            return Err(FieldError::NotAnObject);
        }
        serde_json::from_str(text).map_err(FieldError::Json)
    }

    /// The value of a field as its JSON text; `None` when it is absent or `null`.
    pub(super) fn raw(&self, field: &'static str) -> Result<Option<&'a RawValue>, FieldError> {
        let mut values = self.0.iter().filter(|(name, _)| name == field).map(|(_, value)| *value);
        let value = values.next();
        if values.next().is_some() {
            return Err(FieldError::Twice { field });
        }
        Ok(value.filter(|value| value.get() != "null"))
    }

    pub(super) fn optional_string(&self, field: &'static str) -> Result<Option<Cow<'a, str>>, FieldError> {
        let Some(raw) = self.raw(field)? else { return Ok(None) };
        expect_kind(field, raw, JsonKind::String, "a string")?;
        let text: Text<'a> = read(field, raw)?;
        Ok(Some(text.0))
    }

    pub(super) fn string(&self, field: &'static str) -> Result<Cow<'a, str>, FieldError> {
        self.optional_string(field)?.ok_or(FieldError::Missing { field, needed: "a string" })
    }

    pub(super) fn optional_whole(&self, field: &'static str) -> Result<Option<u64>, FieldError> {
        let Some(raw) = self.raw(field)? else { return Ok(None) };
        expect_kind(field, raw, JsonKind::Number, "a whole number")?;
        match raw.get().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => {
                let why = "it has to be a whole number from 0 to 18446744073709551615".to_owned();
                Err(FieldError::Invalid { field, why })
            }
        }
    }

    pub(super) fn whole(&self, field: &'static str) -> Result<u64, FieldError> {
        self.optional_whole(field)?.ok_or(FieldError::Missing { field, needed: "a whole number" })
    }

    pub(super) fn optional_boolean(&self, field: &'static str) -> Result<Option<bool>, FieldError> {
        let Some(raw) = self.raw(field)? else { return Ok(None) };
        expect_kind(field, raw, JsonKind::Boolean, "true or false")?;
        Ok(Some(raw.get() == "true"))
    }

    pub(super) fn array(&self, field: &'static str) -> Result<Vec<&'a RawValue>, FieldError> {
        let raw = self.raw(field)?.ok_or(FieldError::Missing { field, needed: "an array" })?;
        expect_kind(field, raw, JsonKind::Array, "an array")?;
        read(field, raw)
    }

    /// `{"epoch":"x7","offset":40}` in a field.
    pub(super) fn optional_position(&self, field: &'static str) -> Result<Option<Position>, FieldError> {
        let Some(raw) = self.raw(field)? else { return Ok(None) };
        expect_kind(field, raw, JsonKind::Object, r#"an object, as in {"epoch":"x7","offset":40}"#)?;
        let invalid = |why: &dyn fmt::Display| FieldError::Invalid { field, why: why.to_string() };
        let inner = Fields::parse(raw.get()).map_err(|error| invalid(&error))?;
        let epoch = inner.string("epoch").map_err(|error| invalid(&error))?;
        let offset = inner.whole("offset").map_err(|error| invalid(&error))?;
        Position::new(&epoch, offset).map(Some).map_err(|error| invalid(&error))
    }
}

impl<'de> serde::Deserialize<'de> for Fields<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::with_capacity(8);
                while let Some((name, value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    entries.push((name.0, value));
                }
                Ok(Fields(entries))
            }
        }

        d.deserialize_map(Entries)
    }
}

/// A string that is borrowed when it has no escapes. A bare `Cow` would always be copied.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn expect_kind(field: &'static str, raw: &RawValue, kind: JsonKind, needed: &'static str) -> Result<(), FieldError> {
    match JsonKind::of(raw.get()) {
        found if found == kind => Ok(()),
        found => Err(FieldError::WrongType { field, needed, found }),
    }
}

fn read<'a, T: serde::Deserialize<'a>>(field: &'static str, raw: &'a RawValue) -> Result<T, FieldError> {
    serde_json::from_str(raw.get()).map_err(|error| FieldError::Invalid { field, why: error.to_string() })
}
