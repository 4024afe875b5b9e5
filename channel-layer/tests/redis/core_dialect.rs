//! What Django's processes put into Redis: taken once, in order, and left where it is while it cannot be taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use groupcast_channel_layer::broker::foreign::{Intake, Taken};
use groupcast_channel_layer::broker::redis::{Dialect, ForeignConfig, RedisBroker, RedisConfig};
use groupcast_channel_layer::broker::{Broker, BrokerError, BrokerEvent, BrokerInbox};
use groupcast_channel_layer::contract::group;
use groupcast_channel_layer::dialect::{Codec, Keys, Serializer, To};
use groupcast_protocol::{GroupName, Message, NodeId};
use redis::Commands;
use tokio::time::{sleep, timeout};

use super::config;
use super::server::Redis;

const DEADLINE: Duration = Duration::from_secs(30);
/// The most frames of a bucket that a registrar has in hand.
const PARKED_MAX: usize = 100;

#[tokio::test]
async fn what_cannot_be_taken_stays_where_its_sender_counts_it() {
    let mut story = Story::begin(codec(12)).await;
    story.intake.is_open.store(false, Ordering::Relaxed);
    (0..300).for_each(|n| story.send_number(n));
    story.looked_at(5 * PARKED_MAX).await;
    let parked: Vec<usize> = story.parked().iter().map(|key| story.redis.llen(key).expect("a list")).collect();
    let left: usize = story.redis.zcard(&story.bucket).expect("a sorted set");
    assert_eq!((parked, left), (vec![PARKED_MAX], 300 - PARKED_MAX));
    story.intake.is_open.store(true, Ordering::Relaxed);
    story.have_arrived(300).await;
    eventually(|| story.parked().is_empty()).await;
}

#[tokio::test]
async fn what_is_parked_does_not_grow_too_old() {
    let codec = Codec { keys: Keys::new(&["s3cret"]), max_age_secs: Some(1), ..codec(12) };
    let mut story = Story::begin(codec).await;
    story.intake.is_open.store(false, Ordering::Relaxed);
    (0..10).for_each(|n| story.send_number(n));
    // It is asked for every 200 ms, so this is more than two seconds.
    story.looked_at(12 * 10).await;
    story.intake.is_open.store(true, Ordering::Relaxed);
    story.have_arrived(10).await;
}

#[tokio::test]
async fn equal_messages_are_two_also_without_random_bytes() {
    let mut story = Story::begin(codec(0)).await;
    for at in 1..=3 {
        // The same bytes each time; the key has them once at a time.
        story.send(r#"{"type":"x"}"#, f64::from(at));
        assert_eq!(story.arrived().await, r#"{"type":"x"}"#);
    }
}

#[tokio::test]
async fn what_django_could_not_take_is_refused_before_anybody_has_it() {
    let mut story = Story::begin(codec(12)).await;
    let publish = |text: &'static str| {
        let message = Message::parse(Bytes::from_static(text.as_bytes())).expect("a message");
        let fresh_epoch = "e".into();
        story.broker.publish(groupcast_channel_layer::broker::Publication {
            group: group("room"),
            message,
            keep: None,
            fresh_epoch,
        })
    };
    for wrong in [r#"{"type":"x","n":18446744073709551616}"#, r#"{"type":"x","__asgi_channel__":"specific.a!b"}"#] {
        assert!(matches!(publish(wrong).await, Err(BrokerError::Unwritable { .. })), "{wrong}");
    }
    publish(r#"{"type":"y"}"#).await.expect("it can be written");
    assert_eq!(story.arrived().await, r#"{"type":"y"}"#);
}

#[tokio::test]
async fn garbage_among_frames_costs_none_of_them() {
    let mut story = Story::begin(codec(12)).await;
    let bucket = story.bucket.clone();
    for n in 0..50 {
        let mut garbage = redis::pipe();
        for k in 0..100_u32 {
            let frame: Vec<u8> = match k % 4 {
                0 => format!("{n} {k}").into_bytes(),
                1 => (0..40).map(|at| (at * k + n) as u8 ^ 0x9b).collect(),
                2 => vec![k as u8; 1000],
                _ => [vec![0; 12], b"\x81\xa4type\xa1x".to_vec(), k.to_be_bytes().to_vec()].concat(),
            };
            garbage.zadd(&bucket, frame, f64::from(n));
        }
        garbage.zadd(&bucket, vec![n as u8; 200_000], f64::from(n)).exec(&mut story.redis).expect("a sorted set");
        story.send_number(n as usize);
        assert_eq!(story.arrived().await, number(n as usize));
    }
    let dropped = story.broker.counters().into_iter().find(|(name, ..)| *name == "foreign_dropped");
    assert!(dropped.is_some_and(|(.., dropped)| dropped > 2000), "{dropped:?}");
}

#[tokio::test]
async fn keys_of_another_type_stop_nobody() {
    let mut story = Story::begin(codec(12)).await;
    let number_of_bucket = story.bucket.trim_start_matches("asgigroupcast.").trim_end_matches('!').to_owned();
    let mut keys: Vec<String> = Vec::new();
    eventually(|| {
        keys = story.redis.keys("*:registrar:*").expect("keys");
        !keys.is_empty()
    })
    .await;
    let own = keys[0].split(":registrar:").next().expect("a prefix").to_owned();
    let broken = [
        story.bucket.clone(),
        "asgispecific.gw1!".to_owned(),
        format!("{own}:parked:{number_of_bucket}"),
        format!("{own}:registrar:{number_of_bucket}"),
    ];
    for (n, key) in broken.iter().enumerate() {
        redis::pipe().del(key).hset(key, "a", "b").exec(&mut story.redis).expect("a hash");
        // As long as the key is what it is, Django cannot write there.
        eventually(|| redis::cmd("TYPE").arg(key).query(&mut story.redis).is_ok_and(|kind: String| kind != "hash"))
            .await;
        story.send_number(n);
        assert_eq!(story.arrived().await, number(n), "{key}");
    }
}

#[tokio::test]
async fn members_that_cannot_be_written_to_do_not_fail_a_message_that_is_published() {
    let mut story = Story::begin(codec(12)).await;
    let names: [&[u8]; 5] = [b"taken", b"\xff\xfe", b"", b"a b c", b"specific.x!y"];
    for name in names {
        let _: () = story.redis.zadd("asgi:group:room", name, 9e9).expect("a sorted set");
    }
    let _: () = story.redis.set("asgitaken", "not a channel").expect("a string");
    let publication = |n| groupcast_channel_layer::broker::Publication {
        group: group("room"),
        message: Message::parse(number(n).into()).expect("a message"),
        keep: None,
        fresh_epoch: "e".into(),
    };
    story.broker.publish(publication(0)).await.expect("it is published");
    assert_eq!(story.arrived().await, number(0));
    let reached: usize = story.redis.zcard("asgispecific.x!").expect("a sorted set");
    assert_eq!(reached, 1, "the others have it");
    redis::pipe().del("asgi:group:room").set("asgi:group:room", "x").exec(&mut story.redis).expect("a string");
    story.broker.publish(publication(1)).await.expect("it is published");
    assert_eq!(story.arrived().await, number(1));
}

#[tokio::test]
async fn a_message_goes_to_as_many_processes_as_there_are() {
    const PROCESSES: usize = 500;
    let mut story = Story::begin(codec(12)).await;
    let mut members = redis::pipe();
    for n in 0..PROCESSES {
        members.zadd("asgi:group:room", format!("specific.p{n}!a"), 9e9);
        members.zadd("asgi:group:room", format!("specific.p{n}!b"), 9e9);
    }
    members.exec(&mut story.redis).expect("a sorted set");
    let publication = groupcast_channel_layer::broker::Publication {
        group: group("room"),
        message: Message::parse(number(7).into()).expect("a message"),
        keep: None,
        fresh_epoch: "e".into(),
    };
    story.broker.publish(publication).await.expect("it is published");
    let mut counts = redis::pipe();
    for n in 0..PROCESSES {
        counts.zcard(format!("asgispecific.p{n}!"));
    }
    let counts: Vec<usize> = counts.query(&mut story.redis).expect("sorted sets");
    assert_eq!(counts, vec![1; PROCESSES], "one frame for each process");
    let given_up = story.broker.counters().into_iter().find(|(name, ..)| *name == "foreign_given_up");
    assert_eq!(given_up.map(|(.., count)| count), Some(0));
}

struct Story {
    broker: Arc<RedisBroker>,
    inbox: BrokerInbox,
    intake: Arc<Gate>,
    codec: Codec,
    /// The key of the bucket, and the gateways' name in the group.
    bucket: String,
    member: String,
    redis: redis::Connection,
    _server: Redis,
}

impl Story {
    async fn begin(codec: Codec) -> Self {
        let server = Redis::start(&[]);
        let expiry = Duration::from_secs(600);
        let foreign = ForeignConfig {
            dialect: Dialect::Core,
            prefix: "asgi".to_owned(),
            capacity: 1000,
            expiry,
            group_expiry: expiry,
            codec: codec.clone(),
        };
        let config = RedisConfig { foreign: Some(foreign), ..config(vec![server.address()]) };
        let (broker, mut inbox) =
            RedisBroker::connect(config, &NodeId::parse("gw1").expect("a name")).expect("a valid address");
        assert_eq!(timeout(DEADLINE, inbox.recv()).await.expect("it comes"), Some(BrokerEvent::Up));
        broker.follow(vec![group("room")]).await.expect("it is there");
        let intake = Arc::new(Gate { is_open: AtomicBool::new(true), asked: AtomicUsize::new(0) });
        broker.take_in(intake.clone()).await;
        let client = redis::Client::open(server.address()).expect("a valid address");
        let mut redis = client.get_connection().expect("it is there");
        let members: Vec<String> = redis.zrange("asgi:group:room", 0, -1).expect("a sorted set");
        let [member] = <[String; 1]>::try_from(members).expect("one member for all gateways");
        let (bucket, _) = member.split_once('!').expect("a name of a process");
        let bucket = format!("asgi{bucket}!");
        Self { broker, inbox, intake, codec, bucket, member, redis, _server: server }
    }

    /// Does what `group_send` of Django does.
    fn send(&mut self, text: &str, score: f64) {
        let message = Message::parse(Bytes::copy_from_slice(text.as_bytes())).expect("a message");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let frame = self.codec.encode(&message, &To::Several(&[&self.member]), now).expect("it can be written");
        let _: () = self.redis.zadd(&self.bucket, frame, score).expect("a sorted set");
    }

    fn send_number(&mut self, n: usize) {
        self.send(&number(n), n as f64);
    }

    /// Waits until messages have been offered to the intake so often, all in all.
    async fn looked_at(&self, times: usize) {
        let asked = self.intake.asked.load(Ordering::Relaxed);
        eventually(|| self.intake.asked.load(Ordering::Relaxed) > asked + times).await;
    }

    async fn have_arrived(&mut self, messages: usize) {
        for n in 0..messages {
            assert_eq!(self.arrived().await, number(n));
        }
    }

    async fn arrived(&mut self) -> String {
        match timeout(DEADLINE, self.inbox.recv()).await.expect("it comes") {
            Some(BrokerEvent::Message { envelope, .. }) => envelope.message.as_str().to_owned(),
            other => panic!("no message: {other:?}"),
        }
    }

    fn parked(&mut self) -> Vec<String> {
        self.redis.keys("*:parked:*").expect("keys")
    }
}

/// Takes everything while it is open, and nothing while it is not.
struct Gate {
    is_open: AtomicBool,
    asked: AtomicUsize,
}

impl Intake for Gate {
    fn take<'a>(
        &'a self,
        _: &'a GroupName,
        _: &'a Message,
        _: &'a [u8],
    ) -> std::pin::Pin<Box<dyn Future<Output = Taken> + Send + 'a>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let is_open = self.is_open.load(Ordering::Relaxed);
        Box::pin(async move { if is_open { Taken::Show } else { Taken::Later } })
    }
}

fn codec(prefix_bytes: usize) -> Codec {
    let (serializer, keys) = (Serializer::Msgpack, Keys::default());
    Codec { serializer, keys, prefix_bytes, max_age_secs: None, message_bytes: 65_536 }
}

fn number(n: usize) -> String {
    format!(r#"{{"type":"x","n":{n}}}"#)
}

async fn eventually(mut state: impl FnMut() -> bool) {
    timeout(DEADLINE, async {
        while !state() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it comes to be");
}
