//! What only the PostgreSQL store can show: several processes, lost connections, layouts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use groupcast_protocol::{GroupName, JobId, Message};

use super::db::Db;
use super::{Place, PostgresQueue, Sync, Time, schema, testing};
use crate::config::consumer::Durability;
use crate::jobs::queue::{ClaimAsk, Finish, Finished, How, LeaseState, WorkQueue};
use crate::jobs::time::{Clock, ManualClock, SystemClock};
use crate::jobs::watch::Watch;
use crate::jobs::{Counters, JobState, JobsError, NewJob, OpenError, ReplyTo};
use crate::postgres::Address;

#[tokio::test]
async fn two_processes_never_get_one_job() {
    let schema = testing::schema();
    // They start at once, and both find the tables.
    let (first, second) = tokio::join!(open(&schema, "gw1"), open(&schema, "gw2"));
    let ids = enqueue(&first.queue, 200).await;
    let claim = async |node: &Node| {
        let mut claimed = Vec::new();
        loop {
            let batch = node.queue.claim(ask(7)).await.expect("a batch").jobs;
            if batch.is_empty() {
                return claimed;
            }
            claimed.extend(batch);
        }
    };
    let (a, b) = tokio::join!(claim(&first), claim(&second));
    assert!(a.iter().all(|claimed| claimed.told_by.is_none()));
    assert!(b.iter().all(|claimed| claimed.told_by.as_deref() == Some("gw1")));
    let mut seen: Vec<JobId> = a.iter().chain(&b).map(|claimed| claimed.lease.id).collect();
    seen.sort_unstable();
    assert_eq!(seen, sorted(ids));
}

#[tokio::test]
async fn who_took_a_job_in_is_told_of_its_end_and_an_heir_when_he_is_gone() {
    let schema = testing::schema();
    let (taker, runner) = (open(&schema, "gw1").await, open(&schema, "c1").await);
    let id = enqueue(&taker.queue, 1).await[0];
    let claimed = runner.queue.claim(ask(1)).await.expect("a batch").jobs.remove(0);
    let end = Finish { lease: claimed.lease, how: How::Cancelled };
    let told = runner.queue.finish(vec![end]).await.expect("told");
    assert!(matches!(&told[0], Finished::Accepted(settled) if settled.told_by.as_deref() == Some("gw1")), "{told:?}");
    assert!(runner.queue.events_pending(9).await.expect("read").is_empty());
    let pending = taker.queue.events_pending(9).await.expect("read");
    assert!(
        pending.iter().map(|settled| (settled.record.id, settled.told_by.is_none())).eq([(id, true)]),
        "{pending:?}"
    );
    let hint = tokio::time::timeout(Duration::from_secs(20), taker.watch.events.notified());
    hint.await.expect("the one who tells is woken");
    // Its name was never seen, as if it had gone long ago.
    let heir = open_with(&schema, "gw2", Some(Duration::from_secs(1))).await;
    let inherits = async {
        while heir.queue.events_pending(9).await.expect("read").is_empty() {
            heir.watch.events.notified().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), inherits).await.expect("somebody tells");
    assert!(taker.queue.events_pending(9).await.expect("read").is_empty());
}

#[tokio::test]
async fn work_and_cancellations_are_hinted_at() {
    let schema = testing::schema();
    let (taker, runner) = (open(&schema, "gw1").await, open(&schema, "c1").await);
    let wake = runner.watch.wake_of("workers");
    enqueue(&taker.queue, 1).await;
    tokio::time::timeout(Duration::from_secs(20), wake.notified()).await.expect("work is hinted at");
    let claimed = runner.queue.claim(ask(1)).await.expect("a batch").jobs.remove(0);
    let cancel = tokio_util::sync::CancellationToken::new();
    let _running = runner.watch.runs(claimed.lease.id, cancel.clone());
    taker.queue.cancel(vec![claimed.lease.id]).await.expect("told");
    tokio::time::timeout(Duration::from_secs(20), cancel.cancelled()).await.expect("it is hinted at");
    let held = runner.queue.extend(vec![claimed.lease], Duration::from_secs(15)).await.expect("told");
    assert_eq!(held, [LeaseState::CancelRequested], "without the hint, the heartbeat tells");
}

#[tokio::test]
async fn delays_are_kept_by_a_process_whose_clock_is_wrong() {
    let schema = testing::schema();
    // 2025, whatever the server says.
    let clock = Arc::new(ManualClock::new());
    let late = open_at(&schema, "gw1", Time::Server(clock.clone())).await;
    let job = NewJob { run_at: Some(clock.wall_ms() + 3_600_000), ..job() };
    let id = job.id;
    late.queue.enqueue(vec![job]).await.expect("stored");
    let record = late.queue.get(vec![id]).await.expect("read").remove(0).expect("there");
    assert_eq!(record.state, JobState::Scheduled, "an hour is an hour");
    let next = late.queue.claim(ask(1)).await.expect("a batch").next_at.expect("one is due");
    assert!(next.abs_diff(clock.wall_ms() + 3_600_000) < 600_000, "{next}");
}

#[tokio::test]
async fn calls_that_wait_together_are_committed_together() {
    let node = open(&testing::schema(), "gw1").await;
    let many = futures_util::future::join_all((0..100).map(|_| enqueue(&node.queue, 1)));
    let ids: std::collections::HashSet<JobId> = many.await.into_iter().flatten().collect();
    assert_eq!((ids.len(), node.counters.committed_calls.get()), (100, 100));
    assert!(node.counters.commits.get() < 50, "{} commits", node.counters.commits.get());
}

#[tokio::test]
async fn texts_with_zeros_are_kept() {
    let node = open(&testing::schema(), "gw1").await;
    let keyed = || NewJob { unique_key: Some("a\0b".into()), ..job() };
    let id = node.queue.enqueue(vec![keyed()]).await.expect("stored")[0].id;
    let again = node.queue.enqueue(vec![keyed()]).await.expect("told");
    assert_eq!((again[0].id, again[0].existing), (id, true));
    let claimed = node.queue.claim(ask(1)).await.expect("a batch").jobs.remove(0);
    let error =
        crate::jobs::JobError { code: "x".into(), message: "a\0b".into(), class: crate::jobs::ErrorClass::Permanent };
    node.queue.finish(vec![Finish { lease: claimed.lease, how: How::Dead(error) }]).await.expect("told");
    let record = node.queue.get(vec![id]).await.expect("read").remove(0).expect("there");
    assert_eq!(record.error.expect("it failed").message, "a\u{fffd}b");
}

#[tokio::test]
async fn a_server_that_is_away_is_told_and_comes_back() {
    let server = tokio::task::spawn_blocking(testing::Postgres::start).await.expect("it starts");
    let node = open_on(&server.url(), "jobs", "gw1", Time::Server(Arc::new(SystemClock::new())), None).await;
    let node = node.expect("a fresh schema");
    let before = enqueue(&node.queue, 1).await[0];
    let stop = |mut server: testing::Postgres| {
        server.stop();
        server
    };
    let start = |mut server: testing::Postgres| {
        server.restart();
        server
    };
    let server = tokio::task::spawn_blocking(move || stop(server)).await.expect("it stops");
    let refused = node.queue.enqueue(vec![job()]).await;
    assert!(matches!(refused, Err(JobsError::Unavailable { .. })), "{refused:?}");
    assert!(node.queue.ready().await.is_err());
    let _server = tokio::task::spawn_blocking(move || start(server)).await.expect("it starts");
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while let Err(error) = node.queue.ready().await {
        assert!(tokio::time::Instant::now() < until, "{error}");
        tokio::task::yield_now().await;
    }
    let after = enqueue(&node.queue, 1).await[0];
    let claimed = node.queue.claim(ask(9)).await.expect("a batch").jobs;
    assert_eq!(claimed.iter().map(|claimed| claimed.lease.id).collect::<Vec<_>>(), [before, after]);
}

#[tokio::test]
async fn a_server_that_does_not_keep_what_it_commits_gets_nothing_that_is_to_be_on_disk() {
    for (setting, name) in [("fsync=off", "fsync"), ("full_page_writes=off", "full_page_writes")] {
        let server = tokio::task::spawn_blocking(move || testing::Postgres::start_with(&[setting])).await;
        let server = server.expect("it starts");
        let refused = open_at_url(&server.url()).await.map(drop);
        assert!(matches!(refused, Err(OpenError::NotDurable { setting, .. }) if setting == name), "{refused:?}");
        let address = server.url().parse().expect("an address");
        let looked = super::look(&address, Durability::Disk).await;
        assert!(matches!(looked, Err(OpenError::NotDurable { setting, .. }) if setting == name), "{looked:?}");
        super::look(&address, Durability::Os).await.expect("it is there, and more is not asked for");
        assert_eq!(server.query("select count(*) from pg_namespace where nspname = 'jobs'"), "0", "nothing was made");
    }
}

#[tokio::test]
async fn what_the_server_takes_back_later_is_noticed_and_its_default_for_commits_does_not_matter() {
    let server = tokio::task::spawn_blocking(|| testing::Postgres::start_with(&["synchronous_commit=off"])).await;
    let server = server.expect("it starts");
    let node = open_at_url(&server.url()).await.expect("each transaction says what its commit waits for");
    let level = node.queue.db().transact(Sync::Disk, |tx| {
        async move { Ok(tx.query("show synchronous_commit", &[]).await?[0].get::<_, String>(0)) }.boxed()
    });
    assert_eq!(level.await.expect("told"), "on");
    enqueue(&node.queue, 1).await;
    server.query("alter system set fsync = off");
    server.query("select pg_reload_conf()");
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    // The connections read the new setting when they next come to it.
    while let Ok(stored) = node.queue.enqueue(vec![job()]).await {
        assert!(tokio::time::Instant::now() < until, "{stored:?}");
    }
    let (safe, lax) = (job(), NewJob { durability: Durability::Os, ..job() });
    let told = tokio::join!(node.queue.enqueue(vec![safe]), node.queue.enqueue(vec![lax]));
    assert!(matches!(told.0, Err(JobsError::NotDurable { setting: "fsync" })), "{:?}", told.0);
    assert!(told.1.is_ok(), "its neighbour in the transaction is stored: {:?}", told.1);
}

async fn open_at_url(url: &str) -> Result<Node, OpenError> {
    open_on(url, "jobs", "gw1", Time::Server(Arc::new(SystemClock::new())), None).await
}

#[tokio::test]
async fn a_layout_moves_up_and_never_down() {
    const ONE: &[&str] = &["create table a (x bigint); insert into a values (1)"];
    const TWO: &[&str] = &[ONE[0], "alter table a add column y bigint"];
    let (schema, address) = (testing::schema(), testing::url().parse::<Address>().expect("an address"));
    let db = Db::new(&address, &schema, 2, Time::Server(Arc::new(SystemClock::new()))).expect("a handle");
    let moved = async |migrations| schema::migrate_to(&db, "here", &schema, migrations).await;
    moved(ONE).await.expect("made");
    moved(ONE).await.expect("as it is");
    moved(TWO).await.expect("moved up");
    let kept = db.read("select x, y from a", Vec::new()).await.expect("kept");
    assert_eq!((kept[0].get::<_, i64>(0), kept[0].get::<_, Option<i64>>(1)), (1, None));
    assert!(matches!(moved(ONE).await, Err(OpenError::NewerSchema { found: 2, known: 1, .. })));
}

#[tokio::test]
async fn work_of_before_traces_is_done_without_one() {
    let (schema, address) = (testing::schema(), testing::url().parse::<Address>().expect("an address"));
    let db = Db::new(&address, &schema, 2, Time::Server(Arc::new(SystemClock::new()))).expect("a handle");
    let before = &schema::MIGRATIONS[..schema::MIGRATIONS.len() - 1];
    schema::migrate_to(&db, "here", &schema, before).await.expect("made");
    let old = "insert into job (id, consumer, message, reply_kind, reply_to, durability, priority, run_at, tries,
            max_attempts, hops, state, enqueued_at, origin, asker)
        values ('0193a0b0-c0d0-7000-8000-00000000000a', 'workers', '{\"type\":\"work\"}', 1, 'g', 1, 0, 0, 5, 5, 0, 1, 7,
            'gw1', '{\"user\":\"alice\"}') returning id";
    assert_eq!(db.read(old, Vec::new()).await.expect("as it was written then").len(), 1);
    let node = open(&schema, "gw1").await;
    let claimed = node.queue.claim(ask(9)).await.expect("a batch").jobs.remove(0);
    assert_eq!((claimed.message.as_str(), claimed.message.trace()), (r#"{"type":"work"}"#, &None));
    assert_eq!(claimed.asker.and_then(|asker| asker.user).as_deref(), Some("alice"));
}

#[tokio::test]
async fn a_database_that_cannot_keep_every_text_is_refused() {
    let server = testing::Postgres::shared();
    server.query("create database latin encoding 'LATIN1' template template0");
    let url = server.url();
    let url = format!("{}latin", url.strip_suffix("postgres").expect("the last part is the database"));
    let refused = open_on(&url, "jobs", "gw1", Time::Server(Arc::new(SystemClock::new())), None).await;
    assert!(matches!(&refused, Err(OpenError::Encoding { encoding, .. }) if encoding == "LATIN1"));
}

#[tokio::test]
async fn the_second_of_two_processes_with_one_name_is_not_ready() {
    let schema = testing::schema();
    let lease = Some(Duration::from_millis(100));
    let first = open_with(&schema, "gw1", lease).await;
    let name_is_taken = async {
        let sql = "select 1 from node where name = 'gw1'";
        while first.queue.db().read(sql, Vec::new()).await.expect("read").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), name_is_taken).await.expect("the first is there");
    let second = open_with(&schema, "gw1", lease).await;
    let told = async {
        loop {
            match second.queue.ready().await {
                Err(JobsError::Unavailable { what }) => return what,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let what = tokio::time::timeout(Duration::from_secs(20), told).await.expect("the second is told");
    assert!(what.contains("server.node"), "{what}");
    first.queue.ready().await.expect("the first has its name");
}

/// What one process has.
struct Node {
    queue: PostgresQueue,
    watch: Arc<Watch>,
    counters: Arc<Counters>,
}

async fn open(schema: &str, node: &str) -> Node {
    open_at(schema, node, Time::Server(Arc::new(SystemClock::new()))).await
}

async fn open_at(schema: &str, node: &str, time: Time) -> Node {
    open_on(&testing::url(), schema, node, time, None).await.expect("a fresh schema")
}

async fn open_with(schema: &str, node: &str, tells: Option<Duration>) -> Node {
    let time = Time::Server(Arc::new(SystemClock::new()));
    open_on(&testing::url(), schema, node, time, tells).await.expect("a schema")
}

async fn open_on(url: &str, schema: &str, node: &str, time: Time, tells: Option<Duration>) -> Result<Node, OpenError> {
    let (watch, counters) = (Arc::<Watch>::default(), Arc::<Counters>::default());
    let address = url.parse().expect("an address");
    let place = Place { address, schema: schema.into(), node: node.into(), tells, durability: Durability::Disk };
    let queue = PostgresQueue::open(place, time, Arc::clone(&counters), 1000, Arc::clone(&watch)).await?;
    Ok(Node { queue, watch, counters })
}

fn job() -> NewJob {
    let message = Message::parse(Bytes::from_static(br#"{"type":"work"}"#)).expect("a message");
    let group = GroupName::parse("g").expect("a name");
    NewJob { durability: Durability::Disk, ..NewJob::new("workers", message, ReplyTo::Group(group)) }
}

async fn enqueue(queue: &PostgresQueue, n: usize) -> Vec<JobId> {
    let jobs = (0..n).map(|_| job()).collect();
    queue.enqueue(jobs).await.expect("stored").into_iter().map(|told| told.id).collect()
}

fn ask(max: usize) -> ClaimAsk {
    ClaimAsk { consumer: "workers".into(), max, lease: Duration::from_secs(15), ..ClaimAsk::default() }
}

fn sorted(mut ids: Vec<JobId>) -> Vec<JobId> {
    ids.sort_unstable();
    ids
}
