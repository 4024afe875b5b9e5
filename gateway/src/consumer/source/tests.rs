//! What a source lets through, and how fast it stops.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Execution, SourceError, SqliteSource};
use crate::consumer::context::Stop;
use crate::consumer::params::SqlValue;
use crate::jobs::results::RowSet;

/// Runs for as long as it is let.
const ENDLESS: &str = "with recursive n(x) as (select 1 union all select x + 1 from n) select count(*) from n";

#[tokio::test]
async fn what_is_more_than_reading_is_refused() {
    let rig = Rig::new();
    for sql in [
        "attach database 'new.db' as other",
        "attach database ':memory:' as other",
        "pragma query_only = 0",
        "pragma writable_schema = 1",
        "select * from pragma_table_info('flights')",
        "select * from pragma_query_only",
        "create temp table t as select * from flights",
        "create table t (x)",
        "insert into flights values ('JFK', 1, 1.0)",
        "update flights set n = 2",
        "delete from flights",
        "drop table flights",
        "vacuum into 'copy.db'",
        "begin immediate",
        "savepoint s",
        "select load_extension('x')",
        "select fts3_tokenizer('simple')",
        "analyze",
        "reindex",
        "select 1; select 2",
        "select 1; drop table flights",
    ] {
        let refused = rig.run(sql).await;
        assert!(matches!(refused, Err(SourceError::Refused(_))), "{sql}: {refused:?}");
    }
    let count = rig.run("select count(*) from flights").await.expect("still there");
    assert_eq!(text(&count), "[3]\n");
    let files = std::fs::read_dir(rig.dir.path()).expect("read").count();
    assert_eq!(files, 1, "no file was made");
}

#[tokio::test]
async fn large_values_are_refused_before_they_are_made() {
    let rig = Rig::new();
    for sql in
        ["select length(randomblob(900000000))", "select length(zeroblob(900000000))", "select hex(zeroblob(9e6))"]
    {
        let start = Instant::now();
        let refused = rig.run(sql).await;
        assert!(matches!(&refused, Err(SourceError::Refused(why)) if why.contains("too big")), "{sql}: {refused:?}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn reading_in_all_its_forms_is_let_through() {
    let rig = Rig::new();
    for (sql, expected) in [
        ("select origin, n, delay from flights order by n", "[\"JFK\",1,1.5]\n[\"LGA\",2,null]\n[\"EWR\",3,-0.25]\n"),
        ("with a as (select n from flights) select sum(n) from a", "[6]\n"),
        (
            "with recursive c(x) as (select 1 union all select x + 1 from c where x < 3) select x from c",
            "[1]\n[2]\n[3]\n",
        ),
        ("select value from json_each('[1,\"a\"]')", "[1]\n[\"a\"]\n"),
        ("select upper('a'), row_number() over () from flights limit 1", "[\"A\",1]\n"),
        ("select name from sqlite_schema", "[\"flights\"]\n"),
        ("select x'00ff', 9e999", "[\"00ff\",null]\n"),
    ] {
        let rows = rig.run(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(text(&rows), expected, "{sql}");
    }
}

#[tokio::test]
async fn a_deadline_stops_an_endless_query() {
    let rig = Rig::new();
    let start = Instant::now();
    let stopped = rig.execute(Execution { timeout: Duration::from_millis(300), ..rig.execution(ENDLESS) }).await;
    assert_eq!(stopped, Err(SourceError::TimedOut(Duration::from_millis(300))));
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{took:?}");
    rig.run("select 1").await.expect("the connection is good again");
}

#[tokio::test]
async fn a_cancelled_query_stops_at_once() {
    let rig = Rig::new();
    let token = CancellationToken::new();
    let stop = Stop { token: token.clone(), ..Stop::after(Duration::from_secs(60)) };
    let mut running = Box::pin(rig.execute(Execution { stop, ..rig.execution(ENDLESS) }));
    while rig.source.load() != (1, 0) {
        assert!(futures_util::poll!(&mut running).is_pending());
        tokio::task::yield_now().await;
    }
    let start = Instant::now();
    token.cancel();
    assert_eq!(running.await, Err(SourceError::Cancelled));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    rig.run("select 1").await.expect("the connection is good again");
}

/// Prints how far a deadline is overshot and how long a cancellation takes, and holds the middle of both to what no busy
/// machine makes of a millisecond.
#[tokio::test]
async fn deadlines_and_cancellations_are_prompt() {
    let rig = Rig::new();
    let (mut overshot, mut cancelled) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let (start, timeout) = (Instant::now(), Duration::from_millis(20));
        rig.execute(Execution { timeout, ..rig.execution(ENDLESS) }).await.expect_err("endless");
        overshot.push(start.elapsed().saturating_sub(timeout));

        let token = CancellationToken::new();
        let stop = Stop { token: token.clone(), ..Stop::after(Duration::from_secs(60)) };
        let mut running = Box::pin(rig.execute(Execution { stop, ..rig.execution(ENDLESS) }));
        while rig.source.load() != (1, 0) {
            assert!(futures_util::poll!(&mut running).is_pending());
            tokio::task::yield_now().await;
        }
        let start = Instant::now();
        token.cancel();
        running.await.expect_err("cancelled");
        cancelled.push(start.elapsed());
    }
    for (what, times) in [("a deadline is overshot by", &mut overshot), ("a cancellation takes", &mut cancelled)] {
        times.sort_unstable();
        eprintln!("{what} {:?}, at most {:?}", times[10], times[19]);
        assert!(times[10] < Duration::from_secs(1), "{what} {times:?}");
    }
}

#[tokio::test]
async fn budgets_cut_and_say_so() {
    let rig = Rig::new();
    let sql = "with recursive c(x) as (select 1 union all select x + 1 from c where x < 100) select x from c";
    for (max_rows, max_bytes, expected, truncated) in
        [(100, usize::MAX, 100, false), (99, usize::MAX, 99, true), (u64::MAX, 8, 2, true), (u64::MAX, 0, 0, true)]
    {
        let rows = rig.execute(Execution { max_rows, max_bytes, ..rig.execution(sql) }).await.expect("rows");
        assert_eq!((rows.row_count(), rows.truncated), (expected, truncated), "{max_rows} {max_bytes}");
    }
}

#[tokio::test]
async fn parameters_are_bound_by_name() {
    let rig = Rig::new();
    let values = vec![("o".to_owned(), SqlValue::Text("x' or 1=1 --".into())), ("n".to_owned(), SqlValue::Integer(2))];
    let sql = "select :o, n from flights where n > :n and origin <> @o";
    let rows = rig.execute(Execution { values, ..rig.execution(sql) }).await.expect("rows");
    assert_eq!(text(&rows), "[\"x' or 1=1 --\",3]\n");
    assert!(matches!(rig.run("select :missing").await, Err(SourceError::Refused(_))));
}

#[tokio::test]
async fn a_source_may_come_later_than_the_gateway() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("late.db");
    let source = SqliteSource::start("late", path.clone(), 1).expect("threads");
    let rig = Rig { dir, source };
    assert!(matches!(rig.run("select 1").await, Err(SourceError::Unavailable { .. })));
    std::fs::write(&path, "no database, but long enough to be looked at as one".repeat(20)).expect("written");
    assert!(matches!(rig.run("select * from flights").await, Err(SourceError::Unavailable { .. })));
    std::fs::remove_file(&path).expect("removed");
    make(&path);
    rig.run("select * from flights").await.expect("rows");
}

#[test]
fn a_check_finds_what_is_wrong_without_running_it() {
    let rig = Rig::new();
    let check = |sql: &str, declared: &[&str]| {
        let declared: BTreeSet<&str> = declared.iter().copied().collect();
        rig.source.problems(sql, &declared).join("; ")
    };
    assert_eq!(check("select :a, n from flights", &["a"]), "");
    assert_eq!(check(ENDLESS, &[]), "");
    for (sql, declared, expected) in [
        ("select nope from flights", &[][..], "no such column"),
        ("select :a from flights", &[], "uses `:a`"),
        ("select n from flights", &["a"], "does not use it"),
        ("select ? from flights", &[], "has no name"),
        ("delete from flights", &[], "not authorized"),
        ("", &[], "no columns"),
        ("selec", &[], "syntax error"),
    ] {
        let found = check(sql, declared);
        assert!(found.contains(expected), "{sql}: {found}");
    }
}

struct Rig {
    dir: tempfile::TempDir,
    source: SqliteSource,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("demo.db");
        make(&path);
        let source = SqliteSource::start("demo", path, 1).expect("threads");
        Self { dir, source }
    }

    fn execution(&self, sql: &str) -> Execution {
        Execution {
            sql: Arc::from(sql),
            values: Vec::new(),
            max_rows: 1000,
            max_bytes: 1 << 20,
            timeout: Duration::from_secs(20),
            stop: Stop::after(Duration::from_secs(20)),
        }
    }

    async fn execute(&self, execution: Execution) -> Result<RowSet, SourceError> {
        self.source.run(execution).await
    }

    async fn run(&self, sql: &str) -> Result<RowSet, SourceError> {
        self.execute(self.execution(sql)).await
    }
}

fn make(path: &PathBuf) {
    let conn = rusqlite::Connection::open(path).expect("a file");
    let rows = "create table flights (origin text, n integer, delay real);
        insert into flights values ('JFK', 1, 1.5), ('LGA', 2, null), ('EWR', 3, -0.25);";
    conn.execute_batch(rows).expect("made");
}

fn text(rows: &RowSet) -> String {
    rows.chunks.iter().map(|chunk| String::from_utf8_lossy(&chunk.ndjson)).collect()
}
