//! A broker that is killed, cut off, silent and slow while messages go through it: sockets stay, and of what they did not get
//! they are told.
//!
//! `GROUPCAST_FAULT_ROUNDS=100 GROUPCAST_CHECK_SECONDS=900` makes it a hundred faults.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use groupcast_tests::proxy::{Fault, Proxy, Way};
use groupcast_tests::redis::{DURABLE, Redis};
use groupcast_tests::verdict::{Place, Records, Verdict};
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Http, Socket};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const GROUP: &str = "kept.room";
/// Faults, unless more are asked for.
const ROUNDS: usize = 6;

type Shared = Arc<Mutex<Records>>;

#[tokio::test]
async fn whatever_happens_to_the_broker_a_loss_is_told() {
    let mut redis = Redis::start(&DURABLE);
    let proxy = Proxy::start(redis.port()).await;
    let (one, two) = tokio::join!(start("gw1", redis.port()), start("gw2", proxy.port()));
    let records = Shared::default();
    let mut readers = Vec::new();
    for (name, gateway) in [("a", &one), ("b", &one), ("c", &two), ("d", &two)] {
        readers.push(Reader::start(name, gateway, &records).await);
    }
    let (stop, stopped) = watch::channel(false);
    let writers = [write(one.http(), 0, &records, &stopped), write(two.http(), 1, &records, &stopped)];
    let mut back = Vec::new();
    for round in 0..rounds() {
        progress(&readers).await;
        match round % 5 {
            0 => {
                redis.kill();
                not_ready(&one).await;
                redis.restart();
            }
            1 => proxy.cut().await,
            2 => {
                proxy.inflict(Fault::Silence(Way::Both));
                // Noticed by itself: nobody says that the other end is gone.
                not_ready(&two).await;
                // What was swallowed does not come any more, so neither does anything behind it.
                proxy.heal();
                proxy.reset().await;
            }
            3 => proxy.reset().await,
            _ => {
                proxy.inflict(Fault::Delay(Duration::from_millis(60)));
                progress(&readers).await;
                proxy.heal();
            }
        }
        let since = Instant::now();
        ready(&one).await;
        ready(&two).await;
        progress(&readers).await;
        back.push(since.elapsed());
    }
    stop.send_replace(true);
    for writer in writers {
        writer.await.expect("a writer ends");
    }
    let last = one.http().group_send(GROUP, &json!({"type": "last", "id": "last"})).await;
    let head = place(&last["epoch"], &last["offset"]).expect("it keeps history");
    for reader in readers {
        reader.ended(&records, &head).await;
    }
    let verdict = records.lock().unwrap_or_else(PoisonError::into_inner).verdict();
    back.sort_unstable();
    eprintln!("{} faults, back within {:?} at most; {verdict:?}", back.len(), back.last().unwrap_or(&Duration::ZERO));
    assert!(verdict.acked > 20, "{verdict:?}");
    let Verdict { acked, found, told_lost, .. } = verdict.clone();
    assert_eq!(verdict, Verdict { acked, found, told_lost, ..Verdict::default() });
}

fn rounds() -> usize {
    let asked = std::env::var("GROUPCAST_FAULT_ROUNDS").ok();
    asked.map_or(ROUNDS, |text| text.parse().expect("a number of faults"))
}

async fn start(node: &str, port: u16) -> Gateway {
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nnode = \"{node}\"\n[layer]\nkind = \"redis\"\n\
         url = \"redis://127.0.0.1:{port}\"\ntimeout = \"500ms\"\n[[group]]\nname = \"kept.*\"\nhistory = {{}}\n"
    );
    Gateway::start(&config).await
}

/// Sends one message after the other, and records those that are taken.
fn write(http: Http, writer: usize, records: &Shared, stopped: &watch::Receiver<bool>) -> JoinHandle<()> {
    let (records, stopped) = (records.clone(), stopped.clone());
    tokio::spawn(async move {
        let mut n = 0;
        while !*stopped.borrow() {
            n += 1;
            let id = format!("{writer}-{n}");
            let answer = http.post(&format!("/v1/groups/{GROUP}/send"), &json!({"type": "chat", "id": id})).await;
            match answer.status {
                202 => {
                    let answer = answer.json();
                    let place = place(&answer["epoch"], &answer["offset"]);
                    records.lock().unwrap_or_else(PoisonError::into_inner).acked(GROUP, &id, "broker", place);
                }
                503 => {}
                other => panic!("{other}: {}", answer.text()),
            }
            // Not as fast as it can: it is about what happens, not about how much.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}

/// A socket that records all it gets.
struct Reader {
    name: &'static str,
    got: watch::Receiver<(usize, bool)>,
    task: JoinHandle<()>,
}

impl Reader {
    async fn start(name: &'static str, gateway: &Gateway, records: &Shared) -> Self {
        let mut socket = Socket::open(gateway).await;
        let told = socket.command(json!({"type": "subscribe", "group": GROUP})).await;
        let begin = place(&told["epoch"], &told["offset"]).expect("it keeps history");
        let records = records.clone();
        records.lock().unwrap_or_else(PoisonError::into_inner).subscribed(name, GROUP, begin.clone());
        let (count, got) = watch::channel((0, false));
        let task = tokio::spawn(async move {
            let mut epoch = begin.0;
            loop {
                let frame = socket.next().await;
                let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
                match frame["type"].as_str() {
                    Some("gap") => {
                        records.gap(name, GROUP, frame["missed"].as_u64());
                        epoch = frame["epoch"].as_str().expect("it keeps history").to_owned();
                    }
                    Some("message") => {
                        let id = frame["message"]["id"].as_str().expect("all have one");
                        let at = frame["offset"].as_u64().map(|offset| (epoch.clone(), offset));
                        records.received(name, GROUP, id, at);
                        let is_last = id == "last";
                        count.send_modify(|(got, last)| (*got, *last) = (*got + 1, is_last));
                    }
                    _ => panic!("{frame} was not to come"),
                }
            }
        });
        Self { name, got, task }
    }

    async fn ended(mut self, records: &Shared, head: &Place) {
        let last = async { self.got.wait_for(|(_, last)| *last).await.map(drop) };
        groupcast_tests::wait::within("the last message", last).await.expect("the reader lives");
        self.task.abort();
        records.lock().unwrap_or_else(PoisonError::into_inner).ended(self.name, GROUP, head);
    }
}

/// Waits until every reader has got something more.
async fn progress(readers: &[Reader]) {
    for reader in readers {
        let mut got = reader.got.clone();
        let before = got.borrow().0;
        let more = async { got.wait_for(|(now, _)| *now > before).await.map(drop) };
        groupcast_tests::wait::within("a message", more).await.expect("the reader lives");
    }
}

async fn not_ready(gateway: &Gateway) {
    let look = || async { gateway.http().try_get("/readyz").await.filter(|reply| reply.status == 503) };
    eventually("the gateway says that the broker is gone", look).await;
}

async fn ready(gateway: &Gateway) {
    let look = || async { gateway.http().try_get("/readyz").await.filter(|reply| reply.status == 200) };
    eventually("the gateway says that the broker is there", look).await;
}

fn place(epoch: &Value, offset: &Value) -> Option<Place> {
    Some((epoch.as_str()?.to_owned(), offset.as_u64()?))
}
