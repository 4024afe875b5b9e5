//! What `groupcast check` tells.

use super::*;

#[test]
fn a_good_configuration_has_no_problems() {
    let dir = demo();
    let query = "id = 1\nname = 'a'\nsource = 'demo'\nsql = 'select :x'\nparams.x = { type = 'text' }";
    assert_eq!(check_all(dir.path(), &[query], &[QUERIES]), []);
}

#[test]
fn every_problem_is_told_with_its_key() {
    let dir = demo();
    let query = |rest: &str| format!("id = 1\nname = 'a'\n{rest}");
    for (rest, key, part) in [
        ("source = 'dmeo'\nsql = 'select 1'", "query.a.source", "did you mean `demo`"),
        ("source = 'demo'\nsql = 'select nope from t'", "query.a.sql", "no such column"),
        ("source = 'demo'\nsql = 'drop table t'", "query.a.sql", "not authorized"),
        ("source = 'demo'\nsql = 'select :x'", "query.a.sql", "params.x"),
        ("source = 'demo'\nsql = 'select 1'\nparams.x = { type = 'text' }", "query.a.sql", "does not use it"),
        (
            "source = 'demo'\nsql = 'select :x'\nparams.x = { type = 'integer', default = 'a' }",
            "query.a.params.x",
            "integer",
        ),
        ("source = 'demo'\nsql = 'select x as a from t'\nrefresh = '1s'\nkey = ['x']", "query.a.key", "are `a`"),
        ("source = 'gone'\nsql = 'select 1'", "source.gone.path", "cannot be read"),
    ] {
        let problems = check_all(dir.path(), &[&query(rest)], &[QUERIES]);
        let found = problems.iter().find(|problem| problem.key == key && problem.message.contains(part));
        assert!(found.is_some(), "{rest}: {problems:?}");
    }
}

#[test]
fn names_and_ids_are_unique() {
    let dir = demo();
    let query = "id = 1\nname = 'a'\nsource = 'demo'\nsql = 'select 1'";
    let problems = check_all(dir.path(), &[query, query], &[QUERIES]);
    let keys: Vec<_> =
        problems.iter().map(|problem| problem.key.as_str()).filter(|key| key.starts_with("query")).collect();
    assert_eq!(keys, ["query.a.name", "query.a.id"]);
}

#[test]
fn a_consumer_without_queries_is_told() {
    let dir = demo();
    assert_eq!(check_all(dir.path(), &[], &[QUERIES])[0].key, "consumer.queries.run");
}

const QUERIES: &str = "name = 'queries'\ngroup = 'g'\ntype = 'execute_query'\nrun = 'query'";

fn check_all(dir: &Path, queries: &[&str], consumers: &[&str]) -> Vec<Problem> {
    let source = |path: &str| toml::from_str(&format!("kind = 'sqlite'\npath = '{path}'")).expect("a source");
    let uses_gone = queries.iter().any(|query| query.contains("'gone'"));
    let mut sources: BTreeMap<String, SourceConfig> = [("demo".to_owned(), source("demo.db"))].into();
    sources.extend(uses_gone.then(|| ("gone".to_owned(), source("gone.db"))));
    let queries: Vec<_> = queries.iter().map(|one| toml::from_str(one).expect("a query")).collect();
    let consumers: Vec<_> = consumers.iter().map(|one| toml::from_str(one).expect("a consumer")).collect();
    check(&sources, &queries, &consumers, dir)
}

fn demo() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let conn = rusqlite::Connection::open(dir.path().join("demo.db")).expect("a file");
    conn.execute_batch("create table t (x)").expect("made");
    dir
}
