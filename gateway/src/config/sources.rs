//! The places that settings come from, merged into one table: flags over environment over file.

use std::path::PathBuf;

use toml::{Table, Value};

use super::problem::{Origins, Problem, Problems};

/// The beginning of every variable that may be a setting: `GROUPCAST_SECTION__KEY`.
const PREFIX: &str = "GROUPCAST_";

/// The places that settings come from; gathered by `main`, so that nothing here reads the environment.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// What would stand in a file, if there is none.
    pub text: Option<String>,
    /// The environment's variables.
    pub environment: Vec<(String, String)>,
    /// What flags said.
    pub flags: Vec<Setting>,
}

/// A setting that a flag made.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The flag, as in `--listen`.
    pub flag: &'static str,
    /// The key, as in `server.listen`.
    pub key: &'static str,
    /// Its value.
    pub value: String,
}

impl Sources {
    /// Settings of one file alone.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { file: Some(path.into()), ..Self::default() }
    }

    /// Settings of a text alone, for a program that embeds the gateway.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }

    /// Reads the file and lays environment and flags over it.
    pub(super) fn merge(&self) -> Result<(Table, Origins), Problems> {
        let mut origins =
            Origins { file: self.file.as_ref().map(|path| path.display().to_string()), ..Origins::default() };
        let mut table = self.read_file(&origins)?;
        let mut problems = Vec::new();
        for (name, key, value) in self.settings(&table) {
            match insert(&mut table, &key, value) {
                Ok(()) => drop(origins.set.insert(key, name)),
                Err(message) => problems.push(Problem { origin: name, key, message }),
            }
        }
        if problems.is_empty() { Ok((table, origins)) } else { Err(Problems(problems)) }
    }

    fn read_file(&self, origins: &Origins) -> Result<Table, Problems> {
        let refused = |message: String| Problems(vec![origins.problem("", message)]);
        let read = |path: &PathBuf| {
            let unreadable = |e| refused(format!("the file cannot be read: {e}; name another with --config"));
            std::fs::read_to_string(path).map_err(unreadable)
        };
        let text = match (&self.file, &self.text) {
            (Some(path), _) => read(path)?,
            (None, Some(text)) => text.clone(),
            (None, None) => return Ok(Table::new()),
        };
        toml::from_str(&text).map_err(|error| refused(not_toml(&text, &error)))
    }

    /// Name, key and value of each setting; later ones win.
    fn settings(&self, file: &Table) -> Vec<(String, String, Value)> {
        let secrets = named_variables(file);
        let of_environment = self.environment.iter().filter_map(|(name, text)| {
            let key = name.strip_prefix(PREFIX).filter(|rest| rest.contains("__") && !secrets.contains(name))?;
            Some((name.clone(), key.to_ascii_lowercase().replace("__", "."), guess(text)))
        });
        let of_flags = self.flags.iter().map(|s| (s.flag.to_owned(), s.key.to_owned(), Value::String(s.value.clone())));
        of_environment.chain(of_flags).collect()
    }
}

/// What is wrong and where, without the line itself: it may be the one with the password.
fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let (line, column) =
        (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
    format!("not TOML: line {line}, column {column}: {}", error.message())
}

/// The variables that `*_env` keys name: they hold secrets and are no settings.
fn named_variables(table: &Table) -> Vec<String> {
    let mut names = Vec::new();
    for (key, value) in table {
        match value {
            Value::String(name) if key.ends_with("_env") => names.push(name.clone()),
            Value::Table(inner) => names.append(&mut named_variables(inner)),
            Value::Array(items) => names.extend(items.iter().filter_map(Value::as_table).flat_map(named_variables)),
            _ => {}
        }
    }
    names
}

/// A variable's text as the scalar it looks like. When the key wants a text after all, `read` gives it the text.
fn guess(text: &str) -> Value {
    if let Ok(truth) = text.parse::<bool>() {
        return Value::Boolean(truth);
    }
    // A number that would be printed otherwise (`007`, `+1`) is a text.
    match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => Value::Integer(number),
        _ => Value::String(text.to_owned()),
    }
}

fn insert(table: &mut Table, key: &str, value: Value) -> Result<(), String> {
    let (outer, last) = key.rsplit_once('.').unwrap_or(("", key));
    if outer.split('.').any(str::is_empty) || last.is_empty() {
        return Err("not a setting; variables of settings are GROUPCAST_SECTION__KEY, as in GROUPCAST_SERVER__LISTEN"
            .to_owned());
    }
    let mut at = table;
    for part in outer.split('.') {
        let inner = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
        at = inner.as_table_mut().ok_or_else(|| {
            format!("`{part}` is not a table, so its entries cannot be set one by one; set them in the file")
        })?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}
