//! A drain under load: everybody is told, what was acknowledged is delivered or done, and the process ends in time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use groupcast_tests::home::JOBS;
use groupcast_tests::socket::End;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Events, Gateway, Http, Raw, Socket};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const SOCKETS: usize = 200;
const STREAMS: usize = 20;
const GROUPS: usize = 4;
const DRAIN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_drain_under_load_loses_nothing_that_was_acknowledged_and_tells_everybody() {
    let gateway = Gateway::start(&config()).await;
    let mut readers = JoinSet::new();
    for n in 0..SOCKETS {
        let group = format!("room.{}", n % GROUPS);
        readers.spawn(read_to_the_end(Socket::subscribed(&gateway, &[&group]).await, group));
    }
    let mut streams = JoinSet::new();
    for n in 0..STREAMS {
        let group = format!("room.{}", n % GROUPS);
        let mut events = Events::open(&gateway, &format!("group={group}")).await;
        events.expect("subscribed", "subscribed").await;
        streams.spawn(stream_to_the_end(events, group));
    }
    let mut publishers = JoinSet::new();
    for group in 0..GROUPS {
        publishers.spawn(publish_until_refused(gateway.http(), format!("room.{group}")));
    }
    let workers = ask_for_work_until_refused(gateway.http());
    let ready = readiness_until_hung_up(&gateway).await;

    let trigger = async {
        let flowing = || async {
            let jobs = gateway.http().get("/v1/jobs?state=running").await.expect(200);
            (jobs["jobs"].as_array().is_some_and(|jobs| !jobs.is_empty())).then_some(())
        };
        eventually("jobs run", flowing).await;
        gateway.terminate();
        Instant::now()
    };
    let (told, streamed, sent, jobs, readiness, drained) =
        tokio::join!(readers.join_all(), streams.join_all(), publishers.join_all(), workers, ready.statuses(), trigger);
    let (code, home) = gateway.ended().await;
    let took = drained.elapsed();
    assert_eq!(code, Some(0));
    assert!(took < DRAIN + Duration::from_secs(2), "{took:?}");

    assert!(readiness.contains(&503) && !readiness.contains(&500), "/readyz says that it drains: {readiness:?}");
    check_told(&told);
    assert!(streamed.iter().all(|stream| stream.ended_well), "each stream has its last chunk");
    let sent: BTreeMap<String, Sent> = sent.into_iter().collect();
    check_delivered(&sent, told.iter().map(|reader| &reader.got).chain(streamed.iter().map(|stream| &stream.got)));
    eprintln!(
        "{} messages and {} jobs were acknowledged; drained in {took:?}",
        sent.values().map(|sent| sent.acknowledged.len()).sum::<usize>(),
        jobs.len()
    );

    let gateway = Gateway::start_in(home).await;
    let http = gateway.http();
    assert!(jobs.len() > 4, "{} jobs", jobs.len());
    for job in jobs {
        assert_eq!(http.ended(&job).await["state"], "succeeded");
    }
}

/// What one reader has got: a group, and the numbers of its messages.
type Got = (String, Vec<u64>);

/// A WebSocket's end.
struct Told {
    got: Got,
    retry_after_ms: u64,
}

/// A stream's end.
struct Streamed {
    got: Got,
    ended_well: bool,
}

/// What a publisher was told of its messages.
struct Sent {
    acknowledged: BTreeSet<u64>,
    /// Of the first that were acknowledged before the drain could begin.
    members: u64,
}

async fn read_to_the_end(mut socket: Socket, group: String) -> Told {
    let mut numbers = Vec::new();
    let retry_after_ms = loop {
        let Some(frame) = socket.next_text().await else { panic!("closed without a word after {numbers:?}") };
        let frame: Value = serde_json::from_str(&frame).expect("frames are JSON");
        match frame["type"].as_str() {
            Some("message") => numbers.push(frame["message"]["n"].as_u64().expect("a number")),
            Some("closing") => break frame["retry_after_ms"].as_u64(),
            _ => panic!("neither a message nor the end: {frame}"),
        }
    };
    let code = loop {
        match socket.last_words().await {
            Ok(frame) => {
                let frame: Value = serde_json::from_str(&frame).expect("frames are JSON");
                assert_eq!(frame["type"], "message", "{frame}");
                numbers.push(frame["message"]["n"].as_u64().expect("a number"));
            }
            Err(end) => break end,
        }
    };
    assert_eq!(code, End::Closed(1012));
    Told { got: (group, numbers), retry_after_ms: retry_after_ms.expect("a time in milliseconds") }
}

async fn stream_to_the_end(mut events: Events, group: String) -> Streamed {
    let (mut numbers, mut closing) = (Vec::new(), false);
    while let Some(event) = events.next().await {
        match event.data["type"].as_str() {
            Some("message") => numbers.push(event.data["message"]["n"].as_u64().expect("a number")),
            Some("closing") => closing = event.data["retry_after_ms"].is_u64(),
            _ => panic!("neither a message nor the end: {event:?}"),
        }
    }
    assert!(closing, "a stream is told");
    Streamed { got: (group, numbers), ended_well: events.end().await }
}

async fn publish_until_refused(http: Http, group: String) -> (String, Sent) {
    let mut sent = Sent { acknowledged: BTreeSet::new(), members: 0 };
    for n in 0.. {
        let message = json!({"type": "tick", "n": n}).to_string().into_bytes();
        let answer = http.try_request("POST", &format!("/v1/groups/{group}/send"), &[], message).await;
        let Ok(reply) = answer else { break };
        if reply.status != 202 {
            reply.problem(503, "unavailable");
            break;
        }
        if n == 0 {
            sent.members = reply.json()["members"].as_u64().expect("a number");
        }
        sent.acknowledged.insert(n);
    }
    (group, sent)
}

async fn ask_for_work_until_refused(http: Http) -> Vec<String> {
    let work = json!({"type": "execute_query", "query": "seconds", "params": {"count": 400_000}}).to_string();
    let mut jobs = Vec::new();
    while jobs.len() < 30 {
        let asked = http.try_request("POST", "/v1/groups/my_group/send", &[], work.clone().into_bytes()).await;
        let Ok(reply) = asked else { break };
        if reply.status != 202 {
            reply.problem(503, "unavailable");
            break;
        }
        jobs.push(reply.json()["jobs"][0]["id"].as_str().expect("a job has an id").to_owned());
    }
    jobs
}

/// A connection that was there before the drain and asks whether the gateway is ready.
struct Asker(Raw);

async fn readiness_until_hung_up(gateway: &Gateway) -> Asker {
    Asker(Raw::connect(gateway.address()).await)
}

impl Asker {
    /// The answers, until the gateway hangs up.
    async fn statuses(mut self) -> BTreeSet<u16> {
        let mut statuses = BTreeSet::new();
        loop {
            self.0.write(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let Some(reply) = self.0.try_reply().await else { return statuses };
            statuses.insert(reply.status);
        }
    }
}

/// All are told when to come back, and not all at the same time.
fn check_told(told: &[Told]) {
    assert_eq!(told.len(), SOCKETS);
    let times: BTreeSet<u64> = told.iter().map(|reader| reader.retry_after_ms).collect();
    assert!(times.len() > SOCKETS / 4, "the times to come back are spread: {times:?}");
    assert!(times.iter().all(|ms| *ms < 60_000), "{times:?}");
}

/// Nobody has a hole, and what was acknowledged before the end has reached somebody who was there to the end.
fn check_delivered<'a>(sent: &BTreeMap<String, Sent>, got: impl Iterator<Item = &'a Got>) {
    let mut last = BTreeMap::new();
    for (group, numbers) in got {
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "of {group}: {numbers:?}");
        assert_eq!(numbers.first(), Some(&0), "of {group}");
        let newest = last.entry(group.clone()).or_insert(0);
        *newest = numbers.last().copied().unwrap_or(0).max(*newest);
    }
    for (group, sent) in sent {
        assert_eq!(sent.members, ((SOCKETS + STREAMS) / GROUPS) as u64, "{group}");
        let newest = sent.acknowledged.last().expect("some are acknowledged");
        assert!(last[group] >= *newest, "of {group}, {newest} was acknowledged, {} was read", last[group]);
    }
}

fn config() -> String {
    let history = "[[group]]\nname = \"room.*\"\nhistory = { messages = 1000, age = \"1h\" }\n";
    format!("{JOBS}\n{history}\n[limits]\ndrain_timeout = \"{}s\"\n", DRAIN.as_secs())
}
