//! From one merged table to [`Config`], entry by entry, so that one bad key does not hide the next.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use toml::{Table, Value};

use super::nearest::suggest;
use super::problem::{Origins, Problem};
use super::{Config, GroupConfig};

const SECTIONS: &[&str] = &[
    "server", "limits", "layer", "group", "jobs", "source", "query", "consumer", "schedule", "auth", "hooks", "tracing",
];

/// Reads what can be read; what cannot has its default, and a problem.
pub(super) fn read(mut table: Table, origins: &Origins, problems: &mut Vec<Problem>) -> Config {
    let mut reader = Reader { origins, problems };
    let config = Config {
        server: reader.section(&mut table, "server"),
        limits: reader.section(&mut table, "limits"),
        layer: reader.section(&mut table, "layer"),
        jobs: reader.section(&mut table, "jobs"),
        group: reader.list::<GroupConfig>(&mut table, "group"),
        source: reader.map(&mut table, "source"),
        query: reader.list(&mut table, "query"),
        consumer: reader.list(&mut table, "consumer"),
        schedule: reader.list(&mut table, "schedule"),
        auth: table.remove("auth").and_then(|value| reader.entry("auth", value)),
        hooks: table.remove("hooks").and_then(|value| reader.entry("hooks", value)),
        tracing: reader.section(&mut table, "tracing"),
    };
    for key in table.keys() {
        reader.problem(key, format!("unknown section; {}", suggest(key, SECTIONS)));
    }
    config
}

struct Reader<'a> {
    origins: &'a Origins,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, key: &str, message: String) {
        self.problems.push(self.origins.problem(key, message));
    }

    /// A table that may be absent.
    fn section<T: DeserializeOwned + Default>(&mut self, table: &mut Table, key: &str) -> T {
        table.remove(key).and_then(|value| self.entry(key, value)).unwrap_or_default()
    }

    /// The tables of `[[key]]`.
    fn list<T: DeserializeOwned>(&mut self, table: &mut Table, key: &str) -> Vec<T> {
        let Some(value) = table.remove(key) else { return Vec::new() };
        let Value::Array(items) = value else {
            self.problem(key, format!("is a {}, and a list is needed; write [[{key}]]", value.type_str()));
            return Vec::new();
        };
        let entries = items.into_iter().enumerate();
        entries.filter_map(|(at, item)| self.entry(&format!("{key}[{at}]"), item)).collect()
    }

    /// The tables of `[key.NAME]`.
    fn map<T: DeserializeOwned>(&mut self, table: &mut Table, key: &str) -> BTreeMap<String, T> {
        let Some(value) = table.remove(key) else { return BTreeMap::new() };
        let Value::Table(items) = value else {
            self.problem(key, format!("is a {}, and a table is needed; write [{key}.NAME]", value.type_str()));
            return BTreeMap::new();
        };
        let entries = items.into_iter();
        entries.filter_map(|(name, item)| Some((name.clone(), self.entry(&format!("{key}.{name}"), item)?))).collect()
    }

    /// One table. A key that cannot be read is told and taken out, and the rest is read again.
    fn entry<T: DeserializeOwned>(&mut self, prefix: &str, value: Value) -> Option<T> {
        let Value::Table(mut table) = value else {
            self.problem(prefix, format!("is a {}, and a table is needed", value.type_str()));
            return None;
        };
        let mut told = Vec::new();
        loop {
            let error = match serde_path_to_error::deserialize(Value::Table(table.clone())) {
                Ok(entry) => return Some(entry),
                Err(error) => error,
            };
            let path: Vec<&Segment> = error.path().iter().collect();
            let below = keys(&path);
            let key = std::iter::once(prefix).chain(below.iter().copied()).collect::<Vec<_>>().join(".");
            if self.origins.set.contains_key(&key) && as_text(&mut table, &below) {
                continue;
            }
            let message = error.inner().message();
            if let Some(field) = quoted(message.strip_prefix("missing field ").unwrap_or_default()).first() {
                let key = format!("{key}.{field}");
                // Absent because it was taken out above: told already.
                if !told.contains(&key) {
                    self.problem(&key, "is missing, and has no default; add it".to_owned());
                }
                return None;
            }
            self.problem(&shown(prefix, &path), explain(message, below.last().copied()));
            if !remove(&mut table, &below) {
                return None;
            }
            told.push(key);
        }
    }
}

/// The keys of a path up to the first place in a list, which is taken out as a whole.
fn keys<'a>(path: &[&'a Segment]) -> Vec<&'a str> {
    path.iter().map_while(|s| if let Segment::Map { key } = s { Some(key.as_str()) } else { None }).collect()
}

fn shown(prefix: &str, path: &[&Segment]) -> String {
    path.iter().fold(prefix.to_owned(), |text, segment| match segment {
        Segment::Seq { index } => format!("{text}[{index}]"),
        Segment::Map { key } => format!("{text}.{key}"),
        Segment::Enum { .. } | Segment::Unknown => text,
    })
}

fn explain(message: &str, key: Option<&str>) -> String {
    let words = quoted(message);
    if message.starts_with("unknown field ") {
        return format!("unknown key; {}", suggest(key.unwrap_or_default(), words.get(1..).unwrap_or_default()));
    }
    if let (true, [word, known @ ..]) = (message.starts_with("unknown variant "), words.as_slice()) {
        return format!("unknown value `{word}`; {}", suggest(word, known));
    }
    let message =
        message.strip_prefix("invalid type: ").map_or(message.to_owned(), |rest| format!("is a {}", bare(rest)));
    let plain = [
        ("expected usize", "a whole number is needed"),
        ("expected u32", "a whole number is needed"),
        ("expected u64", "a whole number is needed"),
        ("expected a boolean", "true or false is needed"),
        ("expected a string", "a text is needed"),
        ("expected path string", "a text is needed"),
        ("expected a sequence", "a list is needed"),
        ("expected ", "needed is "),
    ];
    let found = plain.iter().find(|(theirs, _)| message.contains(theirs));
    found.map_or(message.clone(), |(theirs, ours)| message.replace(theirs, ours))
}

/// `string "x", expected …` without the text, which may be a secret.
fn bare(found: &str) -> String {
    match (found.strip_prefix("string \""), found.rfind("\", expected ")) {
        (Some(_), Some(end)) => format!("string{}", &found[end + 1..]),
        _ => found.to_owned(),
    }
}

/// The texts between backquotes.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// Makes a guessed scalar the text it was. Says whether there was something to do.
fn as_text(table: &mut Table, path: &[&str]) -> bool {
    let Some(value) = find(table, path) else { return false };
    let text = match value {
        Value::Integer(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        _ => return false,
    };
    *value = Value::String(text);
    true
}

fn find<'a>(table: &'a mut Table, path: &[&str]) -> Option<&'a mut Value> {
    let (last, outer) = path.split_last()?;
    outer.iter().try_fold(table, |at, key| at.get_mut(*key)?.as_table_mut())?.get_mut(*last)
}

fn remove(table: &mut Table, path: &[&str]) -> bool {
    let Some((last, outer)) = path.split_last() else { return false };
    let at = outer.iter().try_fold(table, |at, key| at.get_mut(*key)?.as_table_mut());
    at.is_some_and(|at| at.remove(*last).is_some())
}
