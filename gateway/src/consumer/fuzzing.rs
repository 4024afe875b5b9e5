//! Doors to what reads parameters, SQL and the words of backends, for `fuzz/`.

use std::time::Duration;

use super::params::{Given, Param, bind as bind_all, canonical};

/// A parameter of every type.
const PARAMS: &[(&str, &str)] = &[
    ("text", "type = \"text\"\ndefault = \"x\""),
    ("choice", "type = \"text\"\nenum = [\"JFK\", \"LGA\"]\ndefault = \"JFK\""),
    ("integer", "type = \"integer\"\nmin = -5\nmax = 5\ndefault = 0"),
    ("large", "type = \"integer\"\ndefault = 0"),
    ("real", "type = \"real\"\ndefault = 0.5"),
    ("boolean", "type = \"boolean\"\ndefault = false"),
];

pub(crate) fn bind(given: &str) -> Option<String> {
    let param = |(name, config): &(&str, &str)| {
        let config = toml::from_str(config).expect("a parameter's configuration");
        Param::new(name, &config).expect("its default fits")
    };
    let params: Vec<Param> = PARAMS.iter().map(param).collect();
    let given: Given = serde_json::from_str(given).ok()?;
    let bound = bind_all(&params, &given).ok()?;
    Some(canonical(&params, &bound))
}

#[cfg(feature = "postgres")]
pub(crate) fn number(sql: &str) -> (String, Vec<String>, bool) {
    super::source::number_for_postgres(sql)
}

pub(crate) fn retry_after(text: &str, now_ms: u64) -> Option<Duration> {
    super::http::retry_after(text, now_ms)
}
