//! Somebody else who may write to the broker: whatever he writes under our names, what gateways send arrives.

mod flood;

use groupcast_tests::nats::{Nats, Talk};
use groupcast_tests::redis::Redis;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Http};
use tokio::task::spawn_blocking;

use crate::faults::crowd::{Crowd, GROUPS, KEPT, Outcomes, PLAIN};

/// Far ahead of any group of a test.
const FAR: u64 = 1 << 40;
/// How often a place is forged, between messages that have to arrive.
const ROUNDS: u64 = 5;

#[tokio::test]
async fn a_forged_place_on_a_topic_of_redis_keeps_nobody_from_what_comes() {
    let redis = Redis::start(&[]);
    let mut other = redis.connect();
    let forge = async |group: &str, round: u64| {
        let topic = format!("groupcast:asgi:{{{group}}}");
        let epoch = redis.command(&["HGET", &format!("{topic}:h"), "e"]);
        for place in [format!("{epoch} {}", FAR + round), format!("x{round} 1"), format!("x{round} {FAR}")] {
            other.command(&["PUBLISH", &topic, &format!("gc1 {place} - {FORGED}")]).expect("it is published");
        }
    };
    let layer = format!("[layer]\nkind = \"redis\"\nurl = \"{}\"\n", redis.address());
    nobody_is_kept_from_what_comes(&layer, forge).await;
}

#[tokio::test]
async fn a_forged_place_on_a_subject_of_nats_keeps_nobody_from_what_comes() {
    let nats = Nats::start_jetstream("");
    let mut other = nats.connect();
    let forge = async |group: &str, round: u64| {
        let subject = format!("groupcast_channels.group.{}", group.replace('.', "/"));
        let (talk, listened) = (nats.connect(), subject.clone());
        // On another thread: the writers have to go on.
        let (run, epoch) = spawn_blocking(move || newest(talk, &listened)).await.expect("it ends");
        for place in [format!("{epoch} {}", FAR + round), format!("x{round} 1"), format!("x{round} {FAR}")] {
            let record = format!("gcn1 {run} {place} {}\n{FORGED}", FORGED.len());
            other.publish(&subject, record.as_bytes()).expect("it is published");
        }
    };
    let layer = format!("[layer]\nkind = \"nats\"\nurl = \"{}\"\n", nats.address());
    nobody_is_kept_from_what_comes(&layer, forge).await;
}

/// A message that is in nobody's book.
const FORGED: &str = r#"{"type":"chat","forged":true}"#;

async fn nobody_is_kept_from_what_comes(layer: &str, mut forge: impl AsyncFnMut(&str, u64)) {
    let gateways = pair(layer).await;
    let crowd = Crowd::start(&[&gateways[0], &gateways[1]]).await;
    for round in 0..ROUNDS {
        crowd.progress().await;
        for group in [PLAIN, KEPT] {
            forge(group, round).await;
        }
        crowd.progress().await;
    }
    for gateway in &gateways {
        let http = gateway.http();
        let all = || async { dropped(&http, "misplaced").await.filter(|n| *n >= 6 * ROUNDS) };
        eventually("what was forged is counted", all).await;
    }
    let outcomes = crowd.end(&gateways[0].http()).await;
    nobody_was_told_of_a_loss(&outcomes, &gateways).await;
}

/// All that was sent came, once and in order, and no hole was seen.
pub(crate) async fn nobody_was_told_of_a_loss(outcomes: &Outcomes, gateways: &[Gateway]) {
    outcomes.are_sound();
    assert_eq!((outcomes.kept.told_lost, outcomes.plain.told, outcomes.refused.0), (0, 0, 0), "{outcomes:?}");
    for gateway in gateways {
        let http = gateway.http();
        assert_eq!(metric(&http, "groupcast_broker_holes_total").await, Some(0));
        assert_eq!(metric(&http, "groupcast_broker_losses_total").await, Some(0));
    }
}

pub(crate) async fn pair(layer: &str) -> [Gateway; 2] {
    let config = |node: &str| format!("[server]\nlisten = \"127.0.0.1:0\"\nnode = \"{node}\"\n{layer}{GROUPS}");
    let (one, two) = (config("gw1"), config("gw2"));
    let (one, two) = tokio::join!(Gateway::start(&one), Gateway::start(&two));
    [one, two]
}

/// How much a gateway has dropped for a reason.
pub(crate) async fn dropped(http: &Http, reason: &str) -> Option<u64> {
    metric(http, &format!("groupcast_broker_frames_dropped_total{{reason=\"{reason}\"}}")).await
}

pub(crate) async fn metric(http: &Http, name: &str) -> Option<u64> {
    let text = http.get("/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok())
}

/// Run and epoch of the next record of a group.
fn newest(mut talk: Talk, subject: &str) -> (String, String) {
    talk.subscribe(subject, None).expect("it subscribes");
    let (_, record) = talk.message().expect("it comes");
    let text = String::from_utf8(record).expect("a record is text");
    let mut words = text.split(' ').skip(1).map(ToOwned::to_owned);
    (words.next().expect("a run"), words.next().expect("an epoch"))
}
