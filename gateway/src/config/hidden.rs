//! `Hidden`: a text of the configuration that is never shown.

use std::fmt;

use serde::Deserialize;

use super::sources::Sources;

/// A password, a key, or an address that holds one. Printing it says that there is one, no more.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever needs it to do what it is for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// Where a secret is said: `NAME`, `NAME_env` or `NAME_file`.
pub(super) struct Places<'a> {
    /// Its key, as in `jobs.url`.
    pub(super) key: String,
    pub(super) text: Option<&'a Hidden>,
    pub(super) env: Option<&'a str>,
    pub(super) file: Option<&'a std::path::Path>,
}

impl Places<'_> {
    /// How many places say it.
    pub(super) fn count(&self) -> usize {
        usize::from(self.text.is_some()) + usize::from(self.env.is_some()) + usize::from(self.file.is_some())
    }

    /// Reads the variable or the file, whose path is relative to the configuration's. `None`: neither is named.
    ///
    /// # Errors
    /// With the key and what is wrong, which never repeats the secret.
    pub(super) fn read(&self, sources: &Sources) -> Result<Option<Hidden>, (String, String)> {
        let found = if let Some(name) = self.env {
            let variable = sources.environment.iter().find(|(known, _)| known == name);
            let missing = || (format!("{}_env", self.key), format!("the variable `{name}` is not set; set it"));
            variable.map(|(_, text)| text.clone()).ok_or_else(missing)?
        } else if let Some(path) = self.file {
            let folder = sources.file.as_deref().and_then(std::path::Path::parent);
            let path = folder.map_or_else(|| path.to_owned(), |folder| folder.join(path));
            let unread =
                |error| (format!("{}_file", self.key), format!("`{}` cannot be read: {error}", path.display()));
            std::fs::read_to_string(&path).map_err(unread)?
        } else {
            return Ok(None);
        };
        Ok(Some(Hidden::new(found.trim_end_matches(['\r', '\n']))))
    }
}
