//! What is wrong with a configuration, and where it was said.

use std::collections::BTreeMap;
use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, variable or flag that said it.
    pub origin: String,
    /// The key, as in `limits.message_bytes` or `query[0].sql`; empty for the whole file.
    pub key: String,
    /// What, why, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.origin, self.message),
            key => write!(f, "{}: {key}: {}", self.origin, self.message),
        }
    }
}

/// Everything that is wrong, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Where settings came from.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    /// The file that was read.
    pub(super) file: Option<String>,
    /// Keys that a variable or a flag set, with its name.
    pub(super) set: BTreeMap<String, String>,
}

impl Origins {
    /// A problem with a key, told with the file, variable or flag that set it.
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        Problem { origin: self.of(key), key: key.to_owned(), message: message.into() }
    }

    /// The file, variable or flag that set a key.
    pub fn of(&self, key: &str) -> String {
        match (self.set.get(key), &self.file) {
            (Some(name), _) => name.clone(),
            (None, Some(file)) => file.clone(),
            (None, None) => "configuration".to_owned(),
        }
    }
}
