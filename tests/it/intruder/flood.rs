//! Garbage by the ten thousands on all names of ours and of Django's, while messages go through the same broker.

use std::sync::Arc;

use groupcast_tests::Gateway;
use groupcast_tests::chance::Chance;
use groupcast_tests::nats::Nats;
use groupcast_tests::redis::Redis;
use groupcast_tests::resp::Answer;
use groupcast_tests::wait::eventually;
use tokio::task::spawn_blocking;

use super::{dropped, metric, nobody_was_told_of_a_loss, pair};
use crate::faults::crowd::Crowd;

/// Pieces in one go, and how many goes there are: behind each of them every socket gets something.
const GO: usize = 500;
const GOES: usize = 40;
/// Of so many pieces one is larger than a message may be.
const LARGE_EVERY: u64 = 100;
const LARGE: usize = 70_000;
/// How much more memory a gateway may have afterwards: what it may keep of others by its bounds, and what an allocator does
/// not give back at once.
const GROWTH_MAX: u64 = 96 << 20;

#[tokio::test]
async fn garbage_on_topics_and_keys_of_redis_stops_nobody() {
    let buckets = (0..16).map(|bucket| (To::Django, format!("asgigroupcast.{bucket}!")));
    let own = [(To::Django, "asgispecific.gw1!".to_owned())];
    let targets = ours_in_redis().into_iter().chain(buckets).chain(own).collect();
    let frame = b"\x83\xa4type\xa4chat\xa2id\xa1x\xb0__asgi_channel__\x91\xb3groupcast.0!g.flood";
    flood(Broker::Redis(Redis::start(&[]), CORE), targets, frame.to_vec()).await;
}

#[tokio::test]
async fn garbage_on_topics_of_the_other_dialect_stops_nobody() {
    let theirs = ["asgi__group__flood", "asgi__group__no name", "specific.gw1!c999999"];
    let theirs = theirs.map(|topic| (To::Django, topic.to_owned()));
    let parked = [(To::Some, "groupcast:asgi:parked".to_owned())];
    let targets = ours_in_redis().into_iter().chain(theirs).chain(parked).collect();
    flood(Broker::Redis(Redis::start(&[]), "channels_redis.pubsub"), targets, FRAME.to_vec()).await;
}

#[tokio::test]
async fn garbage_on_subjects_of_nats_stops_nobody() {
    let all = ["group.room", "group.kept/room"].map(|name| (To::All, name));
    let some = ["plain.other", "kept.kept/other", "channel.inbox", "node.gw1", "notes"].map(|name| (To::Some, name));
    let ours = all.into_iter().chain(some).map(|(to, name)| (to, format!("groupcast_channels.{name}")));
    let theirs = [(To::Django, "channels.grp.flood"), (To::Django, "channels.pc.specific.gw1")];
    let targets = ours.chain(theirs.map(|(to, name)| (to, name.to_owned()))).collect();
    flood(Broker::Nats(Nats::start_jetstream("")), targets, FRAME.to_vec()).await;
}

const CORE: &str = "channels_redis.core";
/// A message as Django writes it.
const FRAME: &[u8] = b"\x82\xa4type\xa4chat\xa2id\xa1x";

/// Whom something on a name reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    /// Each gateway; only what is a record is understood.
    All,
    /// A gateway, or those that look; or many texts are understood.
    Some,
    /// A gateway that takes what Django sends.
    Django,
}

enum Broker {
    Redis(Redis, &'static str),
    Nats(Nats),
}

fn ours_in_redis() -> Vec<(To, String)> {
    let all = ["{room}", "{kept.room}"].map(|name| (To::All, name));
    let some = ["node:{gw1}", "mail", "notes"].map(|name| (To::Some, name));
    all.into_iter().chain(some).map(|(to, name)| (to, format!("groupcast:asgi:{name}"))).collect()
}

async fn flood(broker: Broker, targets: Vec<(To, String)>, frame: Vec<u8>) {
    let gateways = pair(&broker.layer()).await;
    let crowd = Crowd::start(&[&gateways[0], &gateways[1]]).await;
    crowd.progress().await;
    let before = gateways.each_ref().map(resident);
    let node = broker.node();
    let targets: Vec<(To, String)> = targets.into_iter().map(|(to, name)| (to, name.replace("gw1", &node))).collect();
    let (broker, mut chance, mut certain) = (Arc::new(broker), Chance::new(), Certain::default());
    for _ in 0..GOES {
        let sampled = broker.clone();
        // On another thread: the crowd has to go on.
        let sample = spawn_blocking(move || sampled.sample()).await.expect("it ends");
        let mut pieces = Vec::with_capacity(GO);
        for _ in 0..GO {
            let (to, name) = &targets[chance.number() as usize % targets.len()];
            let is_django = *to == To::Django;
            let whole = if is_django { &frame } else { &sample };
            let mut piece = if is_django { broker.random_prefix(&mut chance) } else { Vec::new() };
            piece.extend(certain.count(*to, garbage(&mut chance, whole, broker.large())));
            pieces.push((name.clone(), piece));
        }
        let sent = broker.clone();
        spawn_blocking(move || sent.send(&pieces)).await.expect("it ends");
        crowd.progress().await;
    }
    let Certain { all, django } = certain;
    assert!(all > GO && django > GO, "{all} and {django} are enough of each");
    let is_counted = || async {
        let mut by_django = 0;
        for gateway in &gateways {
            let http = gateway.http();
            let (unreadable, large) = (dropped(&http, "unreadable").await?, dropped(&http, "too_large").await?);
            let is_all = unreadable + large >= all as u64 && large > 0;
            is_all.then_some(())?;
            by_django += metric(&http, "groupcast_foreign_dropped_total").await?;
        }
        (by_django >= django as u64).then_some(())
    };
    eventually("all garbage is counted", is_counted).await;
    let outcomes = crowd.end(&gateways[0].http()).await;
    nobody_was_told_of_a_loss(&outcomes, &gateways).await;
    for (gateway, before) in gateways.iter().zip(before) {
        let after = resident(gateway);
        assert!(after < before + GROWTH_MAX, "{before} bytes have become {after}");
    }
}

/// How many pieces cannot be understood, whoever reads them.
#[derive(Default)]
struct Certain {
    /// At each gateway.
    all: usize,
    /// At one of them.
    django: usize,
}

impl Certain {
    fn count(&mut self, to: To, (piece, is_certain): (Vec<u8>, bool)) -> Vec<u8> {
        match to {
            To::All => self.all += usize::from(is_certain),
            To::Django => self.django += usize::from(is_certain),
            To::Some => {}
        }
        piece
    }
}

/// A piece, and whether it is certain that it means nothing.
fn garbage(chance: &mut Chance, whole: &[u8], large: Vec<u8>) -> (Vec<u8>, bool) {
    if chance.number().is_multiple_of(LARGE_EVERY) {
        return (large, true);
    }
    match chance.number() % 4 {
        0 => ((0..9 + chance.number() % 200).map(|_| chance.number() as u8 | 0x80).collect(), true),
        1 => (whole[..chance.number() as usize % whole.len()].to_vec(), true),
        _ => (flipped(chance, whole), false),
    }
}

/// A bit of one byte is another one. Digits stay: with another place it might be the very message that comes next.
fn flipped(chance: &mut Chance, whole: &[u8]) -> Vec<u8> {
    let mut piece = whole.to_vec();
    let at = chance.number() as usize % piece.len();
    if !piece[at].is_ascii_digit() {
        piece[at] ^= 1 << (chance.number() % 8);
    }
    piece
}

impl Broker {
    fn layer(&self) -> String {
        let (kind, url, dialect) = match self {
            Self::Redis(redis, dialect) => ("redis", redis.address(), *dialect),
            Self::Nats(nats) => ("nats", nats.address(), "channels_nats"),
        };
        let limit = "[limits]\npublish_bytes = \"64KiB\"\n";
        format!("[layer]\nkind = \"{kind}\"\nurl = \"{url}\"\ndialect = \"{dialect}\"\n{limit}")
    }

    /// What the first gateway calls itself: behind its name is what tells its runs apart.
    fn node(&self) -> String {
        let listened = match self {
            Self::Redis(redis, _) => redis.ask(&["PUBSUB", "CHANNELS", "groupcast:asgi:node:*"]).lines(),
            Self::Nats(nats) => nats.monitoring("/connz?subs=1"),
        };
        let from = listened.find("gw1").expect("it listens to its own name");
        listened[from..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect()
    }

    /// A frame that is larger than a message may be, and otherwise good.
    fn large(&self) -> Vec<u8> {
        let message = format!("{{\"type\":\"a\",\"x\":\"{}\"}}", "x".repeat(LARGE));
        match self {
            Self::Redis(..) => format!("gc1 e 1 - {message}"),
            Self::Nats(_) => format!("gcn1 - e 1 {}\n{message}", message.len()),
        }
        .into_bytes()
    }

    /// What makes equal frames of Django different members of a sorted set.
    fn random_prefix(&self, chance: &mut Chance) -> Vec<u8> {
        match self {
            Self::Redis(_, CORE) => (0..12).map(|_| chance.number() as u8).collect(),
            Self::Redis(..) | Self::Nats(_) => Vec::new(),
        }
    }

    /// What a gateway publishes next.
    fn sample(&self) -> Vec<u8> {
        match self {
            Self::Redis(redis, _) => {
                let mut reader = redis.connect();
                reader.command(&["SUBSCRIBE", "groupcast:asgi:{room}"]).expect("it answers");
                let Answer::Bytes(frame) = reader.answer().expect("it comes").list()[2].clone() else {
                    panic!("no frame came")
                };
                frame
            }
            Self::Nats(nats) => {
                let mut reader = nats.connect();
                reader.subscribe("groupcast_channels.group.room", None).expect("it subscribes");
                reader.message().expect("it comes").1
            }
        }
    }

    fn send(&self, pieces: &[(String, Vec<u8>)]) {
        match self {
            Self::Redis(redis, _) => {
                let mut writer = redis.connect();
                for (name, piece) in pieces {
                    match name.starts_with("asgi") && name.ends_with('!') {
                        true => writer.send(&[&b"ZADD"[..], name.as_bytes(), b"1", piece]),
                        false => writer.send(&[&b"PUBLISH"[..], name.as_bytes(), piece]),
                    }
                    .expect("it is sent");
                }
                // As if a registrar had parked something, more often than any has.
                for bucket in 0..16 {
                    writer
                        .send(&["PUBLISH", "groupcast:asgi:parked", &format!("{bucket} 99999999999 ")])
                        .expect("it is sent");
                }
                (0..pieces.len() + 16).for_each(|_| drop(writer.answer().expect("it answers")));
            }
            Self::Nats(nats) => {
                let mut writer = nats.connect();
                pieces.iter().for_each(|(name, piece)| writer.send(name, piece).expect("it is sent"));
                // Where the groups of the crowd are: fewer than are kept there between two messages of ours.
                for subject in ["groupcast_channels.plain.room", "groupcast_channels.kept.kept/room"] {
                    writer.publish(subject, b"garbage").expect("it is taken");
                }
            }
        }
    }
}

fn resident(gateway: &Gateway) -> u64 {
    gateway.usage().resident_bytes
}
