//! Many follow live queries: each has every change, and each query is asked once a tick however many they are.
//!
//! `GROUPCAST_LIVE_SUBSCRIBERS=10000 GROUPCAST_LIVE_SETS=100 GROUPCAST_CHECK_SECONDS=60` makes it the load that the project
//! promises; the figures are printed (`--nocapture`).

use std::env;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use groupcast_tests::gateway::check_time;
use groupcast_tests::kernel::allow_many_files;
use groupcast_tests::{Gateway, Raw};
use rusqlite::Connection;
use serde_json::{Value, json};

const REFRESH: Duration = Duration::from_secs(1);
/// Rows of each set, of which one changes at a time.
const ROWS: u64 = 10;
/// Sockets that are opened at the same time.
const OPENING: usize = 64;

#[tokio::test]
async fn many_have_every_change_and_the_database_is_asked_once_for_all() {
    allow_many_files();
    let (subscribers, sets) = (wished("GROUPCAST_LIVE_SUBSCRIBERS", 1000), wished("GROUPCAST_LIVE_SETS", 20));
    let gateway = Gateway::start(&config(subscribers)).await;
    let database = database(&gateway, sets);
    let began = Instant::now();
    let address = gateway.address();
    let opening = (0..subscribers).map(|at| Follower::open(address, at % sets));
    let mut followers: Vec<Follower> = stream::iter(opening).buffered(OPENING).collect().await;
    eprintln!("{subscribers} subscribers of {sets} sets after {:.1} s", began.elapsed().as_secs_f64());

    let (used, counting) = (gateway.usage().cpu, Instant::now());
    let (mut delays, mut rounds, time) = (Vec::new(), 0, check_time(5));
    while counting.elapsed() < time {
        rounds += 1;
        let row = rounds % ROWS;
        let change = format!("update ticks set n = {rounds} where line = {row}");
        database.execute(&change, []).expect("good SQL");
        let changed = Instant::now();
        let told = followers.iter_mut().map(|follower| follower.is_told(rounds, row, changed));
        delays.extend(join_all(told).await);
    }
    let (elapsed, cpu) = (counting.elapsed(), gateway.usage().cpu - used);
    tell(&mut delays, elapsed, cpu, gateway.usage().resident_bytes);

    let text = gateway.http().get("/metrics").await.text();
    let runs = metric(&text, "groupcast_live_runs_total");
    let ticks = began.elapsed().as_secs_f64() / REFRESH.as_secs_f64();
    eprintln!("{rounds} changes of each set, {runs} runs in {ticks:.0} ticks");
    assert!(runs as f64 <= sets as f64 * (ticks + 2.0), "a set is asked once a tick: {runs} runs in {ticks} ticks");
    assert_eq!(metric(&text, "groupcast_live_subscribers"), subscribers);
    assert_eq!(metric(&text, "groupcast_live_queries"), sets);
    let changes = metric(&text, "groupcast_live_changes_total");
    assert_eq!(changes, sets * (rounds + 1), "the first rows and each change, once for all of a set");
}

/// A client of one set that knows what comes next.
struct Follower {
    socket: Raw,
    group: Value,
    version: u64,
}

impl Follower {
    /// Subscribes, and takes the first rows.
    async fn open(address: SocketAddr, part: u64) -> Self {
        let mut socket = Raw::websocket(address).await;
        let ask = json!({"type": "subscribe", "query": "ticks", "params": {"part": part}}).to_string();
        socket.send_frame(0x81, true, ask.as_bytes()).await;
        let told = frame(&mut socket).await;
        assert_eq!(told["type"], "subscribed", "{told}");
        let first = frame(&mut socket).await;
        assert_eq!((&first["group"], &first["message"]["type"]), (&told["group"], &json!("query.snapshot")), "{first}");
        let rows: Vec<Value> = (0..ROWS).map(|row| json!([part, row, 0])).collect();
        assert_eq!((&first["message"]["version"], &first["message"]["rows"]), (&json!(1), &json!(rows)), "{first}");
        Self { socket, group: told["group"].clone(), version: 1 }
    }

    /// The next frame is this change and no other; how long it took.
    async fn is_told(&mut self, n: u64, row: u64, since: Instant) -> Duration {
        let mut push = frame(&mut self.socket).await;
        // Who came while the first rows were being sent has them twice, and knows it by their version.
        while push["message"]["version"] == self.version {
            push = frame(&mut self.socket).await;
        }
        let took = since.elapsed();
        let message = &push["message"];
        assert_eq!((&push["group"], &message["type"]), (&self.group, &json!("query.diff")), "{push}");
        let versions = (json!(self.version), json!(self.version + 1));
        assert_eq!((&message["since"], &message["version"]), (&versions.0, &versions.1), "{push}");
        let changed = message["upsert"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(matches!(changed, [one] if one[1] == row && one[2] == n), "{push}");
        self.version += 1;
        took
    }
}

async fn frame(socket: &mut Raw) -> Value {
    let (opcode, payload) = socket.frame().await.expect("the gateway keeps it open");
    assert_eq!(opcode, 1, "{}", String::from_utf8_lossy(&payload));
    serde_json::from_slice(&payload).expect("frames are JSON")
}

fn config(subscribers: u64) -> String {
    let connections = subscribers + 100;
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
data_dir = "data"

[limits]
connections = {connections}
connections_per_address = {connections}
# The clients here answer no pings.
ping_interval = "1h"

[source.shop]
kind = "sqlite"
path = "source.db"

[[query]]
id = 1
name = "ticks"
source = "shop"
sql = "select part, line, n from ticks where part = :part order by line"
params.part = {{ type = "integer" }}
refresh = "{}s"
key = ["line"]
"#,
        REFRESH.as_secs()
    )
}

fn database(gateway: &Gateway, sets: u64) -> Connection {
    let database = Connection::open(gateway.home().path().join("source.db")).expect("the file is there");
    let fill = format!(
        "pragma synchronous = off;
         create table ticks (part integer, line integer, n integer, primary key (part, line)) without rowid;
         create index ticks_by_line on ticks (line);
         with recursive parts(part) as (select 0 union all select part + 1 from parts where part + 1 < {sets}),
             lines(line) as (select 0 union all select line + 1 from lines where line + 1 < {ROWS})
         insert into ticks select part, line, 0 from parts, lines;"
    );
    database.execute_batch(&fill).expect("the table is made");
    database
}

fn wished(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

fn tell(delays: &mut [Duration], elapsed: Duration, cpu: Duration, resident_bytes: u64) {
    delays.sort_unstable();
    let ms = |at: f64| delays[((delays.len() - 1) as f64 * at) as usize].as_millis();
    let mean = delays.iter().sum::<Duration>() / u32::try_from(delays.len()).expect("not that many");
    eprintln!(
        "from the commit to the client: mean {} ms, p50 {} ms, p99 {} ms, max {} ms; gateway: {:.0} % of a core, {} MiB",
        mean.as_millis(),
        ms(0.5),
        ms(0.99),
        ms(1.0),
        100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64(),
        resident_bytes >> 20
    );
}

fn metric(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}
