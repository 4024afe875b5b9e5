//! What it costs to count a request: to be compared with the request, which takes tens of microseconds.
//!
//! `cargo bench -p groupcast --bench limits` (with `-- --quick`: a few seconds).

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use groupcast::auth::caller::User;
use groupcast::auth::{Auth, Caller, Rights, digest_of_key};
use groupcast::config::{ApiKeyConfig, AuthConfig, LimitsConfig, Rate, ScopesConfig};
use groupcast::limits::{Client, Limits};
use groupcast_protocol::GroupName;

/// So many that none comes to its limit, however fast it goes: at the highest rate each may take 100,000 a second.
const CALLERS: u32 = 4096;
/// The same of services.
const SERVICES: u32 = 256;

fn generous() -> Limits {
    let most: Rate = "100000/s".parse().expect("a rate");
    let config = LimitsConfig { address_rate: most, user_rate: most, group_rate: most, ..LimitsConfig::default() };
    Limits::new(&config)
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xC633_0000 | number).into()
}

fn user(number: u32) -> Caller {
    let (name, rights, claims) = (format!("user-{number}"), Rights::default(), BTreeMap::default());
    Caller::User(Arc::new(User { name, rights, claims, expires_ms: None, proof: None }))
}

fn services() -> Vec<Caller> {
    let key = |number: u32| format!("the key of service {number}");
    let entry = |number: u32| ApiKeyConfig {
        name: format!("service-{number}"),
        sha256: digest_of_key(&key(number)),
        scopes: ScopesConfig { admin: true, ..ScopesConfig::default() },
    };
    let api_key = (0..SERVICES).map(entry).collect();
    let auth = Auth::new(Some(&AuthConfig { api_key, ..AuthConfig::default() })).expect("good keys");
    (0..SERVICES).map(|number| auth.identify(Some(&key(number)), 0).expect("it is known")).collect()
}

fn asked(c: &mut Criterion) {
    let mut group = c.benchmark_group("charge");
    let limits = generous();
    let home = limits.client(Ipv4Addr::LOCALHOST.into());
    group.bench_function("this_machine", |b| b.iter(|| limits.charge(black_box(&Caller::Everybody), home)));
    let services = services();
    let mut turn = services.iter().cycle();
    group.bench_function("service", |b| b.iter(|| limits.charge(turn.next().expect("endless"), home)));
    let users: Vec<(Caller, Client)> = (0..CALLERS).map(|n| (user(n), limits.client(address(n)))).collect();
    let mut turn = users.iter().cycle();
    group.bench_function("user", |b| {
        b.iter(|| {
            let (caller, client) = turn.next().expect("endless");
            limits.charge(caller, *client)
        });
    });
    let one = Limits::new(&LimitsConfig { user_rate: "1/h".parse().expect("a rate"), ..LimitsConfig::default() });
    let (caller, client) = (user(0), one.client(address(0)));
    group.bench_function("user_at_his_limit", |b| b.iter(|| one.charge(black_box(&caller), client)));
    group.finish();
}

fn sent(c: &mut Criterion) {
    let limits = generous();
    let groups: Vec<GroupName> = (0..CALLERS).filter_map(|n| GroupName::parse(&format!("room.{n}")).ok()).collect();
    let (caller, client) = (user(0), limits.client(address(0)));
    let mut turn = groups.iter().cycle();
    c.bench_function("charge_group", |b| {
        b.iter(|| limits.charge_group(&caller, client, turn.next().expect("endless")));
    });
}

/// Each asks once, and there are more of them than are kept in mind.
fn flooded(c: &mut Criterion) {
    let limits = generous();
    let mut number = 0_u32;
    c.bench_function("an_address_that_is_new", |b| {
        b.iter(|| {
            number = number.wrapping_add(0x9E37_79B9);
            let client = limits.client(Ipv4Addr::from_bits(number).into());
            limits.charge(&Caller::Everybody, client)
        });
    });
}

criterion_group!(benches, asked, sent, flooded);
criterion_main!(benches);
