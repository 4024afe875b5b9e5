//! A source on a real server: what it gives, what it lets through, how fast it stops.

use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::consumer::params::SqlValue;
use crate::jobs::postgres::testing::Postgres;

#[tokio::test]
async fn values_of_every_type_are_the_json_that_they_mean() {
    let rig = Rig::new();
    for (sql, expected) in [
        (
            "select null::int, true, false, 1::smallint, -2::int, 9223372036854775807",
            "[null,true,false,1,-2,9223372036854775807]\n",
        ),
        ("select 0.1::real, 0.1::double precision, 'NaN'::float8, '-inf'::float4", "[0.1,0.1,null,null]\n"),
        (
            "select 12345678901234567890.1230, 'NaN'::numeric, 'Infinity'::numeric",
            "[12345678901234567890.1230,null,null]\n",
        ),
        ("select 'a\"ü'::text, 'b'::varchar(9), 'c '::char(5), 'd'::name, ''", "[\"a\\\"ü\",\"b\",\"c\",\"d\",\"\"]\n"),
        ("select '\\x00ff'::bytea", "[\"00ff\"]\n"),
        (
            "select timestamptz '2026-01-02 03:04:05.678+02', date '2026-01-02'",
            "[\"2026-01-02T01:04:05.678+00:00\",\"2026-01-02\"]\n",
        ),
        ("select timestamp '2026-01-02 03:04:05', time '03:04'", "[\"2026-01-02T03:04:05\",\"03:04:00\"]\n"),
        ("select uuid 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "[\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"]\n"),
        ("select '{\"a\":\n[1.50]}'::json, '{\"b\": 1}'::jsonb", "[{\"a\": [1.50]},{\"b\": 1}]\n"),
        ("select array[1,null,3], array['a','b']", "[[1,null,3],[\"a\",\"b\"]]\n"),
        ("select row(1, 'x')", "[{\"f1\":1,\"f2\":\"x\"}]\n"),
        ("select origin, n from flights order by n -- the end", "[\"JFK\",1]\n[\"LGA\",2]\n[\"EWR\",3]\n"),
        ("select 1 as a, 2 as a;", "[1,2]\n"),
        (
            "with recursive c(x) as (select 1 union all select x + 1 from c where x < 3) select x from c",
            "[1]\n[2]\n[3]\n",
        ),
        ("values (1), (2)", "[1]\n[2]\n"),
    ] {
        let rows = rig.run(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(text(&rows), expected, "{sql}");
    }
    assert_eq!(rig.run("select 1 as a, 'x' as \"B c\"").await.expect("rows").columns, ["a", "B c"]);
}

#[tokio::test]
async fn what_is_more_than_reading_is_refused() {
    let rig = Rig::new();
    for sql in [
        "insert into flights values ('JFK', 1)",
        "delete from flights",
        "update flights set n = 0",
        "drop table flights",
        "create table t (x int)",
        "create temp table t (x int)",
        "select 1; delete from flights",
        "with gone as (delete from flights returning n) select n from gone",
        "select nextval('numbers')",
        "select * into copied from flights",
        "select n from flights for update",
        "copy flights to stdout",
        "commit",
        "set default_transaction_read_only = off",
        "select set_config('transaction_read_only', 'off', true), nextval('numbers')",
        "select nope from flights",
        "",
    ] {
        let refused = rig.run(sql).await;
        assert!(matches!(refused, Err(SourceError::Refused(_))), "{sql}: {refused:?}");
    }
    assert_eq!(text(&rig.run("select count(*), sum(n) from flights").await.expect("still there")), "[3,6]\n");
}

#[tokio::test]
async fn parameters_are_bound_by_name_and_read_as_what_they_are_needed_for() {
    let rig = Rig::new();
    let values = vec![
        ("o".to_owned(), SqlValue::Text("x' or 1=1 --".into())),
        ("n".to_owned(), SqlValue::Integer(2)),
        ("day".to_owned(), SqlValue::Text("2026-01-02".into())),
        ("half".to_owned(), SqlValue::Real(0.5)),
        ("yes".to_owned(), SqlValue::Integer(1)),
    ];
    let sql =
        "select :o::text, n, :day::date, :half::numeric, :yes::boolean from flights where n > :n and origin <> :o";
    let rows = rig.execute(Execution { values, ..rig.execution(sql) }).await.expect("rows");
    assert_eq!(text(&rows), "[\"x' or 1=1 --\",3,\"2026-01-02\",0.5,true]\n");
    assert!(matches!(rig.run("select :missing::int").await, Err(SourceError::Refused(_))));
}

#[tokio::test]
async fn budgets_cut_and_say_so() {
    let rig = Rig::new();
    let sql = "select x from generate_series(1, 1000) x";
    for (max_rows, max_bytes, expected, truncated) in [
        (1000, usize::MAX, 1000, false),
        (999, usize::MAX, 999, true),
        (256, usize::MAX, 256, true),
        (255, usize::MAX, 255, true),
        (u64::MAX, 8, 2, true),
        (u64::MAX, 0, 0, true),
    ] {
        let rows = rig.execute(Execution { max_rows, max_bytes, ..rig.execution(sql) }).await.expect("rows");
        assert_eq!((rows.row_count(), rows.truncated), (expected, truncated), "{max_rows} {max_bytes}");
    }
    let endless = "with recursive n(x) as (select 1 union all select x + 1 from n) select x from n";
    let rows = rig.execute(Execution { max_rows: 10, ..rig.execution(endless) }).await.expect("what was asked for");
    assert_eq!((rows.row_count(), rows.truncated), (10, true));
}

#[tokio::test]
async fn a_value_that_is_too_large_is_refused() {
    let rig = Rig::new();
    let refused = rig.run("select repeat('x', 50000000)").await;
    assert!(matches!(&refused, Err(SourceError::Refused(why)) if why.contains("too big")), "{refused:?}");
    rig.run("select 1").await.expect("the source is good again");
}

#[tokio::test]
async fn a_deadline_stops_a_query_on_the_server() {
    let rig = Rig::new();
    let stopped = rig.execute(Execution { timeout: Duration::from_millis(300), ..rig.execution(SLEEP) }).await;
    assert_eq!(stopped, Err(SourceError::TimedOut(Duration::from_millis(300))));
    rig.until_nothing_sleeps().await;
    rig.run("select 1").await.expect("the source is good again");
}

#[tokio::test]
async fn a_cancelled_query_stops_here_at_once_and_on_the_server() {
    let rig = Rig::new();
    let token = CancellationToken::new();
    let stop = Stop { token: token.clone(), ..Stop::after(Duration::from_secs(60)) };
    let running = rig.execute(Execution { stop, ..rig.execution(SLEEP) });
    let cancel = async {
        rig.until_it_sleeps().await;
        let start = Instant::now();
        token.cancel();
        start
    };
    let (stopped, start) = tokio::join!(running, cancel);
    assert_eq!(stopped, Err(SourceError::Cancelled));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    rig.until_nothing_sleeps().await;
    assert_eq!(rig.source.load(), (0, 0));
}

#[tokio::test]
async fn a_query_that_nobody_waits_for_is_stopped_on_the_server() {
    let rig = Rig::new();
    let mut running = Box::pin(rig.run(SLEEP));
    tokio::select! {
        stopped = &mut running => panic!("{stopped:?}"),
        () = rig.until_it_sleeps() => {}
    }
    drop(running);
    rig.until_nothing_sleeps().await;
    rig.run("select 1").await.expect("the source is good again");
}

#[tokio::test]
async fn what_a_query_set_in_its_session_is_not_for_the_next() {
    let rig = Rig::new();
    rig.run("select set_config('my.word', 'leaked', false)").await.expect("it may");
    let rows = rig.run("select coalesce(nullif(current_setting('my.word', true), ''), 'none')").await.expect("rows");
    assert_eq!(text(&rows), "[\"none\"]\n");
}

#[tokio::test]
async fn a_role_has_its_own_rights() {
    let rig = Rig::with_role(Some("reader \"of\" few"));
    rig.psql(
        "create role \"reader \"\"of\"\" few\"; create table secrets (x int);
         grant select on flights to \"reader \"\"of\"\" few\"",
    );
    rig.run("select n from flights").await.expect("granted");
    let refused = rig.run("select x from secrets").await;
    assert!(matches!(&refused, Err(SourceError::Refused(why)) if why.contains("permission denied")), "{refused:?}");
}

#[tokio::test]
async fn a_lost_connection_and_a_missing_server_are_transient() {
    let rig = Rig::new();
    let running = rig.run(SLEEP);
    let kill = async {
        rig.until_it_sleeps().await;
        rig.psql(
            "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep%'
             and datname = current_database() and pid <> pg_backend_pid()",
        );
    };
    let (lost, ()) = tokio::join!(running, kill);
    assert!(matches!(lost, Err(SourceError::Unavailable { .. })), "{lost:?}");
    rig.run("select 1").await.expect("by another connection");
    let nowhere: Address = "postgres://nobody@127.0.0.1:1/x".parse().expect("an address");
    let source = PostgresSource::new("gone", &nowhere, 1, None).expect("a pool");
    let refused = source.run(rig.execution("select 1")).await;
    assert!(matches!(refused, Err(SourceError::Unavailable { .. })), "{refused:?}");
    assert!(source.open_problem().await.is_some_and(|why| why.contains("cannot be reached")));
}

#[tokio::test]
async fn queries_wait_for_a_connection_and_no_longer_than_they_may() {
    let rig = Rig::new();
    let token = CancellationToken::new();
    let stop = || Stop { token: token.clone(), ..Stop::after(Duration::from_secs(60)) };
    let sleeping =
        futures_util::future::join_all((0..2).map(|_| rig.execute(Execution { stop: stop(), ..rig.execution(SLEEP) })));
    let wait = async {
        while rig.source.load() != (2, 0) {
            tokio::task::yield_now().await;
        }
        let late = rig.execute(Execution { timeout: Duration::from_millis(200), ..rig.execution("select 1") }).await;
        assert_eq!(late, Err(SourceError::TimedOut(Duration::from_millis(200))));
        token.cancel();
    };
    let (stopped, ()) = tokio::join!(sleeping, wait);
    assert!(stopped.iter().all(|one| *one == Err(SourceError::Cancelled)), "{stopped:?}");
    rig.run("select 1").await.expect("there is room again");
}

#[tokio::test]
async fn a_changed_table_is_read_as_it_is() {
    let rig = Rig::new();
    assert_eq!(text(&rig.run("select * from flights where n = 1").await.expect("rows")), "[\"JFK\",1]\n");
    rig.psql("alter table flights add column late boolean");
    assert_eq!(text(&rig.run("select * from flights where n = 1").await.expect("rows")), "[\"JFK\",1,null]\n");
    rig.psql("alter table flights alter column n type bigint");
    let first = rig.run("select * from flights where n = 1").await;
    assert!(!matches!(first, Err(SourceError::Refused(_))), "worth another try: {first:?}");
    assert_eq!(text(&rig.run("select * from flights where n = 1").await.expect("rows")), "[\"JFK\",1,null]\n");
}

#[tokio::test]
async fn a_check_finds_what_is_wrong_without_running_it() {
    let rig = Rig::new();
    for (sql, declared, expected) in [
        ("select :a::text, n from flights", &["a"][..], ""),
        ("select 1 from pg_sleep(1000)", &[], ""),
        ("select nope from flights", &[], "does not exist"),
        ("select :a::int from flights", &[], "uses `:a`"),
        ("select n from flights", &["a"], "does not use it"),
        ("delete from flights", &[], "no columns"),
        ("delete from flights returning n", &[], "syntax error"),
        ("select 1; select 2", &[], "more than one statement"),
        ("selec", &[], "syntax error"),
    ] {
        let declared: BTreeSet<&str> = declared.iter().copied().collect();
        let found = rig.source.problems(sql, &declared).await.join("; ");
        assert!(found.contains(expected) && (expected.is_empty() == found.is_empty()), "{sql}: {found}");
    }
    assert_eq!(rig.source.open_problem().await, None);
}

#[test]
fn errors_have_the_class_that_decides_what_becomes_of_the_job() {
    let class = |code: &str| Class::of(&SqlState::from_code(code));
    for code in ["40001", "40P01", "08006", "08001", "57P01", "53300", "53200", "55P03", "58030"] {
        assert_eq!(class(code), Class::Transient, "{code}");
    }
    assert_eq!(class("57014"), Class::Stopped);
    for code in ["42601", "42P01", "42501", "22012", "25006", "XX000"] {
        assert_eq!(class(code), Class::Permanent, "{code}");
    }
}

const SLEEP: &str = "select 1 from pg_sleep(600)";

/// The longest that a test waits for a state.
const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    source: PostgresSource,
    url: String,
}

impl Rig {
    fn new() -> Self {
        Self::with_role(None)
    }

    /// Two connections to a database of its own.
    fn with_role(role: Option<&str>) -> Self {
        let url = Postgres::shared().database();
        let address: Address = url.parse().expect("an address");
        let source = PostgresSource::new("demo", &address, 2, role).expect("a pool");
        let rig = Self { source, url };
        rig.psql(
            "create table flights (origin text, n integer); insert into flights values ('JFK', 1), ('LGA', 2), ('EWR', 3);
             create sequence numbers",
        );
        rig
    }

    fn psql(&self, sql: &str) -> String {
        Postgres::shared().query_in(&self.url, sql)
    }

    fn execution(&self, sql: &str) -> Execution {
        Execution {
            sql: Arc::from(sql),
            values: Vec::new(),
            max_rows: 1000,
            max_bytes: 1 << 20,
            timeout: PATIENCE,
            stop: Stop::after(PATIENCE),
        }
    }

    async fn execute(&self, execution: Execution) -> Result<RowSet, SourceError> {
        self.source.run(execution).await
    }

    async fn run(&self, sql: &str) -> Result<RowSet, SourceError> {
        self.execute(self.execution(sql)).await
    }

    async fn until_it_sleeps(&self) {
        self.until("1").await;
    }

    async fn until_nothing_sleeps(&self) {
        self.until("0").await;
    }

    async fn until(&self, sleeping: &str) {
        let deadline = Instant::now() + PATIENCE;
        let count = "select count(*) from pg_stat_activity where state = 'active' and query like '%pg_sleep%'
            and datname = current_database() and pid <> pg_backend_pid()";
        while self.psql(count) != sleeping {
            assert!(Instant::now() < deadline, "it never came to that");
            // The driver's tasks are on this thread.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
    }
}

fn text(rows: &RowSet) -> String {
    rows.chunks.iter().map(|chunk| String::from_utf8_lossy(&chunk.ndjson)).collect()
}
