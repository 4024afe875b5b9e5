//! What buckets allow and whom they keep apart, by a clock that the test moves.

use std::collections::BTreeMap;
use std::time::Duration;

use governor::clock::FakeRelativeClock;
use groupcast_protocol::ErrorCode;
use proptest::prelude::*;

use super::*;
use crate::auth::caller::User;
use crate::auth::{Auth, Rights, digest_of_key};
use crate::config::{ApiKeyConfig, AuthConfig, Rate, ScopesConfig};

const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const AWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

proptest! {
    #[test]
    fn a_bucket_never_allows_more_than_its_burst_and_its_rate(
        count in 1_u32..50,
        steps in prop::collection::vec((0_u64..400, 0_u64..3), 1..300),
    ) {
        let rate: Rate = format!("{count}/s").parse().expect("a rate");
        let clock = FakeRelativeClock::default();
        let bucket = Bucket::new(rate, 1000, clock.clone());
        let (mut taken, mut ms) = ([0_u64; 3], 0);
        for (pause, key) in steps {
            clock.advance(Duration::from_millis(pause));
            ms += pause;
            let burst = u64::from(count) * 2;
            let most = burst + u64::from(count) * ms / 1000;
            let had = taken[key as usize];
            match bucket.take(key) {
                Ok(()) => taken[key as usize] += 1,
                Err(wait) => {
                    prop_assert!(had >= burst, "refused though only {had} of {burst} were taken");
                    prop_assert!(!wait.is_zero() && wait <= rate.interval(), "{wait:?}");
                }
            }
            prop_assert!(taken[key as usize] <= most, "{} of {most}", taken[key as usize]);
        }
    }
}

#[test]
fn after_the_time_that_was_told_there_is_a_token() {
    let clock = FakeRelativeClock::default();
    let bucket = Bucket::new(rate("30/m"), 1000, clock.clone());
    assert_eq!([(); 2].map(|()| bucket.take(1)), [Ok(()); 2]);
    let wait = bucket.take(1).expect_err("the burst is used up");
    clock.advance(wait - Duration::from_nanos(1));
    assert_eq!(bucket.take(1), Err(Duration::from_nanos(1)));
    clock.advance(Duration::from_nanos(1));
    assert_eq!(bucket.take(1), Ok(()));
}

#[test]
fn a_flood_of_keys_takes_bounded_memory_and_frees_nobody_who_is_at_his_limit() {
    let clock = FakeRelativeClock::default();
    let bucket = Bucket::new(rate("10/s"), 6400, clock.clone());
    let keys = RandomState::new();
    let greedy = keys.hash_one("greedy");
    while bucket.take(greedy).is_ok() {}
    for number in 0..100_000_u32 {
        bucket.take(keys.hash_one(number)).expect("each is new");
        assert!(number % 1000 != 0 || bucket.len() <= 6400, "{}", bucket.len());
    }
    assert!(bucket.take(greedy).is_err(), "still at his limit");
    clock.advance(Duration::from_secs(3));
    bucket.sweep();
    assert_eq!(bucket.len(), 0, "all are full again");
}

#[test]
fn a_service_is_bounded_by_its_key_alone_and_by_whichever_of_its_keys() {
    let limits = Timed::new("key_rate = \"1/s\"\naddress_rate = \"1/h\"\ngroup_rate = \"1/h\"");
    let [one, same, other] = ["billing", "billing", "mail"].map(service);
    assert_eq!(limits.until(&one, AWAY), (2, Some(Limit::KeyRate)));
    assert_eq!(limits.until(&same, ELSEWHERE), (0, Some(Limit::KeyRate)));
    assert_eq!(limits.until(&other, AWAY), (2, Some(Limit::KeyRate)));
    let client = limits.shared.client(AWAY);
    assert!((0..100).all(|_| limits.shared.charge_group(&one, client, &group("g")).is_ok()));
}

#[test]
fn a_user_is_bounded_wherever_he_is_and_apart_from_his_namesake_in_another_tenant() {
    let limits = Timed::new("user_rate = \"1/s\"");
    let [alice, bob, other_alice] = [user("alice", "acme"), user("bob", "acme"), user("alice", "initech")];
    assert_eq!(limits.until(&alice, HOME), (2, Some(Limit::UserRate)));
    assert_eq!(limits.until(&alice, AWAY), (0, Some(Limit::UserRate)));
    assert_eq!(limits.until(&bob, AWAY), (2, Some(Limit::UserRate)));
    assert_eq!(limits.until(&other_alice, AWAY), (2, Some(Limit::UserRate)));
    limits.clock.advance(Duration::from_secs(1));
    assert_eq!(limits.until(&alice, AWAY), (1, Some(Limit::UserRate)));
}

#[test]
fn an_address_is_bounded_and_this_machine_is_not() {
    let limits = Timed::new("address_rate = \"1/s\"\nconnection_rate = \"1/s\"");
    assert_eq!(limits.until(&nobody(), AWAY), (2, Some(Limit::AddressRate)));
    assert_eq!(limits.until(&nobody(), ELSEWHERE), (2, Some(Limit::AddressRate)));
    assert_eq!(limits.until(&nobody(), HOME), (100, None));
    assert_eq!(limits.until(&Caller::Everybody, HOME), (100, None));
    let everywhere = Timed::new("address_rate = \"1/s\"\nexempt_addresses = []");
    assert_eq!(everywhere.until(&Caller::Everybody, HOME), (2, Some(Limit::AddressRate)));
}

#[test]
fn who_is_over_his_own_limit_uses_up_no_other_one() {
    let limits = Timed::new("user_rate = \"1/s\"\naddress_rate = \"2/s\"");
    let (greedy, modest) = (user("greedy", "acme"), user("modest", "acme"));
    assert_eq!(limits.until(&greedy, AWAY), (2, Some(Limit::UserRate)));
    for _ in 0..100 {
        assert!(limits.shared.charge(&greedy, limits.shared.client(AWAY)).is_err());
    }
    assert_eq!(
        limits.until(&modest, AWAY),
        (2, Some(Limit::UserRate)),
        "his neighbour has what is left of the address"
    );
}

#[test]
fn a_group_is_bounded_whoever_sends_and_others_are_not() {
    let limits = Timed::new("group_rate = \"1/s\"");
    let client = limits.shared.client(HOME);
    let send = |caller: &Caller, name: &str| limits.shared.charge_group(caller, client, &group(name)).is_ok();
    assert!(send(&user("alice", "acme"), "g") && send(&user("bob", "acme"), "g"));
    assert!(!send(&user("carol", "acme"), "g") && send(&user("carol", "acme"), "h"));
    assert!((0..100).all(|_| send(&nobody(), "g")), "who shows nothing and is on this machine is not counted");
    let away = limits.shared.client(AWAY);
    assert!(limits.shared.charge_group(&nobody(), away, &group("g")).is_err());
}

#[test]
fn connections_of_a_user_are_counted_and_given_back() {
    let config = LimitsConfig { connections_per_user: 2, ..LimitsConfig::default() };
    let limits = Limits::new(&config);
    let (alice, bob) = (user("alice", "acme"), user("bob", "acme"));
    let _first = limits.seat(&alice).expect("there is room");
    let second = limits.seat(&alice).expect("there is room");
    assert_eq!(limits.seat(&alice).map(|_| ()).map_err(|refusal| refusal.code), Err(ErrorCode::RateLimited));
    assert!(limits.seat(&bob).is_ok_and(|seat| seat.is_some()));
    assert!(limits.seat(&service("billing")).is_ok_and(|seat| seat.is_none()));
    drop(second);
    assert!(limits.seat(&alice).is_ok());
    assert_eq!(limits.0.users.keys(), 1);
}

#[test]
fn what_is_replaced_counts_at_once_and_what_stays_keeps_its_buckets() {
    let limits = Timed::new("user_rate = \"1/s\"\naddress_rate = \"5/s\"");
    let alice = user("alice", "acme");
    assert_eq!(limits.until(&alice, HOME), (2, Some(Limit::UserRate)));
    limits.shared.replace(&config("user_rate = \"1/s\"\naddress_rate = \"1/s\""));
    assert_eq!(limits.until(&alice, HOME), (0, Some(Limit::UserRate)), "the same rate: still at his limit");
    assert_eq!(limits.until(&nobody(), AWAY), (2, Some(Limit::AddressRate)));
    limits.shared.replace(&config("user_rate = \"3/s\"\nexempt_addresses = []"));
    assert_eq!(limits.until(&alice, HOME), (6, Some(Limit::UserRate)));
    assert!(!limits.shared.client(HOME).is_exempt());
}

#[test]
fn what_is_refused_says_when_and_is_counted() {
    let limits = Timed::new("user_rate = \"30/m\"");
    let alice = user("alice", "acme");
    assert_eq!(limits.until(&alice, HOME).0, 2);
    let limited = limits.shared.charge(&alice, limits.shared.client(HOME)).expect_err("over the limit");
    let refusal = Refusal::from(limited);
    assert_eq!((refusal.code, refusal.retry_after_ms()), (ErrorCode::RateLimited, Some(2000)));
    assert!(refusal.message.contains("30/m"), "{refusal}");
    let counts: BTreeMap<&str, u64> = limits.shared.refused.counts().map(|(limit, n)| (limit.as_str(), n)).collect();
    assert_eq!((counts["user_rate"], counts["address_rate"]), (2, 0));
}

/// Limits whose time the test has in its hands.
struct Timed {
    clock: FakeRelativeClock,
    shared: Shared<FakeRelativeClock>,
}

impl Timed {
    fn new(limits: &str) -> Self {
        let clock = FakeRelativeClock::default();
        Self { shared: Shared::new(&config(limits), clock.clone()), clock }
    }

    /// How many requests are allowed at once, up to 100, and which limit ends it.
    fn until(&self, caller: &Caller, address: IpAddr) -> (usize, Option<Limit>) {
        let client = self.shared.client(address);
        for allowed in 0..100 {
            if let Err(limited) = self.shared.charge(caller, client) {
                return (allowed, Some(limited.limit));
            }
        }
        (100, None)
    }
}

fn config(limits: &str) -> LimitsConfig {
    toml::from_str(limits).expect("good limits")
}

fn rate(text: &str) -> Rate {
    text.parse().expect("a rate")
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).expect("a good name")
}

fn nobody() -> Caller {
    Caller::Anonymous(Arc::default())
}

fn service(name: &str) -> Caller {
    let key = format!("the key of {name}");
    let scopes = ScopesConfig { admin: true, ..ScopesConfig::default() };
    let api_key = vec![ApiKeyConfig { name: name.to_owned(), sha256: digest_of_key(&key), scopes }];
    let auth = Auth::new(Some(&AuthConfig { api_key, ..AuthConfig::default() })).expect("a good key");
    auth.identify(Some(&key), 0).expect("it is known")
}

fn user(name: &str, tenant: &str) -> Caller {
    let rights = Rights { within: Some(format!("tenant.{tenant}.").into()), ..Rights::default() };
    let (name, claims) = (name.to_owned(), BTreeMap::new());
    Caller::User(Arc::new(User { name, rights, claims, expires_ms: None, proof: None }))
}
