//! What the configuration format knows and this build cannot do: refused by name, before anything starts.
//!
//! Silence would be worse: a gateway that ignores `kind = "redis"` is alone.

use toml::{Table, Value};

use super::problem::{Origins, Problem};

/// A key whose value needs a feature: section, key, value, feature, what to do.
const VALUES: &[(&str, &str, &str, &str, &str)] = &[
    #[cfg(not(feature = "redis"))]
    ("layer", "kind", "redis", "redis", "use \"memory\" for one gateway"),
    #[cfg(not(feature = "nats"))]
    ("layer", "kind", "nats", "nats", "use \"memory\" for one gateway"),
    #[cfg(not(feature = "postgres"))]
    ("jobs", "store", "postgres", "postgres", "use \"sqlite\" for one gateway"),
    #[cfg(not(feature = "postgres"))]
    ("source", "kind", "postgres", "postgres", "use \"sqlite\" with a `path`"),
];

/// Keys that only make sense with a feature: section, keys, feature.
const KEYS: &[(&str, &[&str], &str)] = &[
    #[cfg(not(feature = "postgres"))]
    ("jobs", &["url", "url_env", "url_file", "schema"], "postgres"),
    #[cfg(not(feature = "postgres"))]
    ("source", &["url", "url_env", "url_file", "role"], "postgres"),
    #[cfg(not(feature = "otel"))]
    ("tracing", &["endpoint"], "otel"),
];

/// Tells what this build lacks, and takes it out of the table.
pub(super) fn refuse(table: &mut Table, origins: &Origins) -> Vec<Problem> {
    let mut problems = Vec::new();
    for section in ["layer", "jobs", "source", "tracing"] {
        let Some(value) = table.get_mut(section) else { continue };
        for (key, entry) in entries(section, value) {
            refuse_entry(section, &key, entry, origins, &mut problems);
        }
    }
    problems
}

fn refuse_entry(section: &str, prefix: &str, entry: &mut Table, origins: &Origins, problems: &mut Vec<Problem>) {
    for (_, key, value, feature, instead) in VALUES.iter().filter(|row| row.0 == section) {
        if entry.get(*key).and_then(Value::as_str) == Some(value) {
            let message = format!("`{value}` needs the feature `{feature}`, which this build lacks; {instead}");
            problems.push(origins.problem(&format!("{prefix}.{key}"), message));
            // A value that can be read, so that the rest of the entry is looked at too.
            let readable = match (section, *key) {
                (_, "dialect") => "channels_redis.core",
                ("layer", _) => "memory",
                _ => "sqlite",
            };
            entry.insert((*key).to_owned(), Value::String(readable.to_owned()));
            KEYS.iter().filter(|row| row.0 == section).flat_map(|row| row.1).for_each(|key| drop(entry.remove(*key)));
        }
    }
    for (_, keys, feature) in KEYS.iter().filter(|row| row.0 == section) {
        for key in keys.iter().filter(|key| entry.remove(**key).is_some()) {
            let message = format!("needs the feature `{feature}`, which this build lacks; take it out");
            problems.push(origins.problem(&format!("{prefix}.{key}"), message));
        }
    }
}

/// The tables of a section: itself, those of a list, or those by name.
fn entries<'a>(section: &str, value: &'a mut Value) -> Vec<(String, &'a mut Table)> {
    match value {
        Value::Table(named) => {
            if section != "source" {
                return vec![(section.to_owned(), named)];
            }
            let tables = named.iter_mut().filter_map(|(name, v)| Some((name, v.as_table_mut()?)));
            tables.map(|(name, entry)| (format!("{section}.{name}"), entry)).collect()
        }
        Value::Array(items) => {
            let tables = items.iter_mut().enumerate().filter_map(|(at, v)| Some((at, v.as_table_mut()?)));
            tables.map(|(at, entry)| (format!("{section}[{at}]"), entry)).collect()
        }
        _ => Vec::new(),
    }
}
