//! The configuration of the demo against its data.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::data::{Source, load};
use crate::config::{Config, Durability, ParamConfig, QueryConfig, Run, Sources};

#[test]
fn every_query_answers_with_every_choice_it_offers() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("demo.db");
    load(&file, &Source::Embedded, super::Progress::Hidden).expect("builds");
    let database = Connection::open(&file).expect("opens");
    for query in &config().query {
        for params in asks(query) {
            let rows = rows(&database, query, &params);
            assert!(rows > 0, "{} gives no rows for {params:?}", query.name);
            assert!(rows <= query.max_rows, "{} gives {rows} rows for {params:?}", query.name);
        }
    }
}

#[test]
fn the_queries_are_numbered_and_titled() {
    let queries = config().query;
    let ids: Vec<_> = queries.iter().map(|query| query.id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(queries[6].name, "worst_routes");
    for query in &queries {
        assert!(query.title.ends_with('?') || query.title.starts_with("Every"), "{}", query.title);
        assert!(query.params.values().all(|param| param.default.is_some()), "{} runs with no parameters", query.name);
        assert!(config().source.contains_key(&query.source), "{}", query.source);
    }
}

#[test]
fn the_consumers_are_those_of_the_contract() {
    let claims: Vec<_> = config()
        .consumer
        .into_iter()
        .map(|consumer| (consumer.name, consumer.group, consumer.kind, consumer.run, consumer.durability))
        .collect();
    let consumer = |name: &str, kind: &str, run| (name.into(), "my_group".into(), kind.into(), run, Durability::Disk);
    assert_eq!(
        claims,
        [consumer("queries", "execute_query", Run::Query), consumer("reports", "generate_report", Run::Report)]
    );
}

/// The demo's configuration as the gateway reads it.
fn config() -> Config {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo.toml");
    Config::load(&Sources::file(file)).expect("the demo's configuration is valid").config
}

/// The defaults, and each choice of each parameter with the others at their default.
fn asks(query: &QueryConfig) -> Vec<BTreeMap<String, toml::Value>> {
    let default = |param: &ParamConfig| param.default.clone().expect("has a default");
    let defaults: BTreeMap<_, _> = query.params.iter().map(|(name, param)| (name.clone(), default(param))).collect();
    let mut asks = vec![defaults.clone()];
    for (name, param) in &query.params {
        for choice in param.values.iter().flatten() {
            asks.push(BTreeMap::from_iter(defaults.clone().into_iter().chain([(name.clone(), choice.clone())])));
        }
    }
    asks
}

fn rows(database: &Connection, query: &QueryConfig, params: &BTreeMap<String, toml::Value>) -> u64 {
    let mut statement = database.prepare(&query.sql).expect(&query.name);
    assert_eq!(statement.parameter_count(), params.len(), "{}: parameters declared and used", query.name);
    for (name, value) in params {
        let index = statement.parameter_index(&format!(":{name}")).expect("a name").expect(name);
        let value = match value {
            toml::Value::Integer(number) => Value::Integer(*number),
            toml::Value::String(text) => Value::Text(text.clone()),
            other => panic!("{other:?} is not in the demo"),
        };
        statement.raw_bind_parameter(index, value).expect("binds");
    }
    let mut rows = statement.raw_query();
    let mut number = 0;
    while rows.next().expect(&query.name).is_some() {
        number += 1;
    }
    number
}
