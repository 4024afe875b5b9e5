//! Tenants: whatever tokens say, and however groups are called, nothing of one reaches another.

use super::*;
use crate::config::GroupConfig;

/// How many operations the model test does, unless `GROUPCAST_MODEL_OPERATIONS` says otherwise.
const OPERATIONS: u64 = 1_000_000;
const TENANTS: [&str; 3] = ["a", "ab", "a-b"];

#[test]
fn a_tenant_has_its_own_groups_alone() {
    let caller = user("a", &json!({"subscribe": ["*"], "send": ["*"]}));
    let group = |name: &str| GroupName::parse(name).expect("a good name");
    for (name, own) in [
        ("tenant.a.room", true),
        ("tenant.a.", true),
        ("tenant.a", false),
        ("tenant.ab.room", false),
        ("tenant.A.room", false),
        ("tenant.b.room", false),
        ("room", false),
        ("x.tenant.a.room", false),
    ] {
        assert_eq!(caller.check_subscribe(&group(name)).is_ok(), own, "{name}");
        assert_eq!(caller.check_send(&group(name), "chat").is_ok(), own, "{name}");
        assert_eq!(caller.check_reply(&ReplyTo::Group(group(name)), None).is_ok(), own, "{name}");
        assert_eq!(caller.check_list(name).is_ok(), own, "{name}");
    }
    let filled = user("a", &json!({"subscribe": ["tenant.{tenant}.room.*"], "send": ["tenant.b.*"]}));
    assert!(filled.check_subscribe(&group("tenant.a.room.1")).is_ok());
    assert!(filled.check_subscribe(&group("tenant.a.other")).is_err());
    assert!(filled.check_send(&group("tenant.b.room"), "chat").is_err(), "granted, and another tenant's");
}

#[test]
fn the_same_name_in_another_tenant_is_somebody_else() {
    let all = json!({"subscribe": ["*"], "send": ["*"], "query": ["*"]});
    let (here, there) = (user("a", &all), user("b", &all));
    assert_eq!(here.user(), there.user());
    assert!(here.owns(here.asker().as_ref()) && !there.owns(here.asker().as_ref()));
    assert!(!here.owns(Some(&Asker { within: None, ..here.asker().expect("a user") })));
    assert_ne!(here.scope(), there.scope());
    assert!(here.check_becomes(&here).is_ok());
    assert_eq!(here.check_becomes(&there).expect_err("another tenant's").code, ErrorCode::Forbidden);
}

#[test]
fn the_name_of_a_tenant_is_a_name_and_nothing_else() {
    let long = "x".repeat(41);
    for name in ["", "*", "a.b", "a*", "{tenant}", "a!b", "a b", "a\n", "é", "a/b", "..", &long] {
        let token = token(&json!({"tenant": name}));
        let refusal = auth().identify(Some(&token), NOW).map(drop).expect_err(name);
        assert_eq!(refusal.code, ErrorCode::Unauthenticated);
        assert!(refusal.message.contains("`tenant`"), "{}", refusal.message);
    }
    for odd in [json!({}), json!({"tenant": null}), json!({"tenant": 7}), json!({"tenant": ["a"]})] {
        assert!(auth().identify(Some(&token(&odd)), NOW).is_err(), "{odd}");
    }
}

#[test]
fn groups_say_what_clients_may_send_and_services_send_what_they_want() {
    let groups: Vec<GroupConfig> = toml_groups("name = \"tenant.a.quiet\"\ntypes = [\"wave\", \"execute_query\"]");
    let auth = Auth::with_groups(Some(&config()), &groups).expect("good");
    let caller = auth.identify(Some(&token(&json!({"tenant": "a", "send": ["*"]}))), NOW).expect("a good token");
    let group = |name: &str| GroupName::parse(name).expect("a good name");
    for (name, kind, granted) in [
        ("tenant.a.quiet", "wave", true),
        ("tenant.a.quiet", "execute.query", true),
        ("tenant.a.quiet", "chat", false),
        ("tenant.a.loud", "chat", true),
    ] {
        assert_eq!(caller.check_send(&group(name), kind).is_ok(), granted, "{name} {kind}");
        let service = auth.identify(Some(KEY), NOW).expect("a key");
        assert!(service.check_send(&group(name), kind).is_ok());
    }
}

#[test]
fn what_queries_bind_is_small_and_plain() {
    let caller =
        user("a", &json!({"level": 3, "staff": true, "long": "x".repeat(256), "list": [1], "jti": "x", "none": null}));
    let claims = caller.asker().expect("a user").claims;
    let names: Vec<&str> = claims.keys().map(String::as_str).collect();
    assert_eq!(names, ["level", "staff", "sub", "tenant"]);
    assert_eq!((&claims["sub"], &claims["tenant"], &claims["level"]), (&json!("alice"), &json!("a"), &json!(3)));
    let many: serde_json::Map<_, _> = (0..100).map(|n| (format!("c{n:03}"), json!(n))).collect();
    assert!(user("a", &Value::Object(many)).asker().expect("a user").claims.len() <= 33);
}

/// Three tenants do whatever comes to their minds; a model that knows nothing of patterns says what may come of it.
#[test]
fn nothing_crosses_from_one_tenant_to_another() {
    let operations = std::env::var("GROUPCAST_MODEL_OPERATIONS").ok();
    let operations = operations.map_or(OPERATIONS, |text| text.parse().expect("a number"));
    let seed = std::env::var("GROUPCAST_TEST_SEED").ok().map(|text| text.parse().expect("a seed is a number"));
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | u64::from(line!()));
    eprintln!("run again with GROUPCAST_TEST_SEED={seed}");
    let mut chance = Chance(seed);
    let auth = auth();
    // A few tokens of each tenant, each with grants by chance.
    let users: Vec<(usize, Caller)> =
        (0..60).map(|at| (at % 3, some_user(&auth, TENANTS[at % 3], &mut chance))).collect();
    let mut members: std::collections::HashMap<String, Vec<usize>> = std::collections::HashMap::new();
    let (mut delivered, mut read, mut refused) = (0_u64, 0_u64, 0_u64);
    for _ in 0..operations {
        let at = chance.below(users.len());
        let (tenant, caller) = &users[at];
        let name = some_group(&mut chance);
        let group = GroupName::parse(&name).expect("a good name");
        let own = tenant_of(&name) == Some(TENANTS[*tenant]);
        let granted = match chance.below(12) {
            0..3 => caller.check_subscribe(&group).map(|()| members.entry(name.clone()).or_default().push(at)),
            // Members and history take the same right; a list takes it for all names that begin so.
            3 => caller.check_subscribe(&group).map(|()| read += 1),
            4 => caller.check_list(&name).map(|()| read += 1),
            5 => caller.check_reply(&ReplyTo::Group(group), None),
            6 => {
                members.remove(&name);
                continue;
            }
            _ => caller.check_send(&group, "chat").map(|()| {
                for to in members.get(&name).into_iter().flatten() {
                    assert_eq!(
                        users[*to].0, *tenant,
                        "from {} to {} by `{name}`",
                        TENANTS[*tenant], TENANTS[users[*to].0]
                    );
                    delivered += 1;
                }
            }),
        };
        match granted {
            Ok(()) => assert!(own, "{} got into `{name}`", TENANTS[*tenant]),
            Err(_) => refused += 1,
        }
        for member in members.get(&name).into_iter().flatten() {
            assert_eq!(tenant_of(&name), Some(TENANTS[users[*member].0]), "`{name}`");
        }
        members.entry(name).and_modify(|all| all.truncate(20));
    }
    eprintln!("{operations} operations: {delivered} delivered, {read} read, {refused} refused");
    assert!(
        delivered > operations / 1000 && read > operations / 1000 && refused > operations / 1000,
        "it tries nothing"
    );
}

/// Whose a group is, told without patterns: by what lies between the first two dots.
fn tenant_of(name: &str) -> Option<&str> {
    let mut parts = name.splitn(3, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("tenant"), Some(tenant), Some(_)) => Some(tenant),
        _ => None,
    }
}

fn some_group(chance: &mut Chance) -> String {
    let tenant = chance.of(&["a", "ab", "a-b", "a_b", "A", "", "tenant"]);
    match chance.below(8) {
        0 => format!("tenant.{tenant}x"),
        1 => format!("tenants.{tenant}.room"),
        2 => format!("tenant.{tenant}.tenant.{}.room", chance.of(&TENANTS)),
        3 => chance.of(&["room", "tenant", "tenant.", "tenant..", "tenant.a", "query.a.b"]).to_owned(),
        _ => format!("tenant.{}.room.{}", chance.of(&TENANTS), chance.below(3)),
    }
}

fn some_user(auth: &Auth, tenant: &str, chance: &mut Chance) -> Caller {
    let patterns = [
        "*",
        "tenant.*",
        "tenant.a*",
        "tenant.ab.*",
        "tenant.a-b.room.1",
        "tenant.{tenant}.*",
        "tenant.{tenant}.room.1",
    ];
    let mut some = || (0..1 + chance.below(3)).map(|_| chance.of(&patterns)).collect::<Vec<_>>();
    let grants = json!({"tenant": tenant, "subscribe": some(), "send": some()});
    auth.identify(Some(&token(&grants)), NOW).expect("a good token")
}

/// Random numbers (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("it is below a usize")
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

fn config() -> AuthConfig {
    AuthConfig { tenant_claim: Some("tenant".to_owned()), ..super::config(&[]) }
}

fn auth() -> Auth {
    Auth::new(Some(&config())).expect("good secrets")
}

fn token(more: &Value) -> String {
    signed(&claims(more))
}

fn user(tenant: &str, more: &Value) -> Caller {
    let mut more = more.clone();
    more["tenant"] = json!(tenant);
    auth().identify(Some(&token(&more)), NOW).expect("a good token")
}

fn toml_groups(text: &str) -> Vec<GroupConfig> {
    vec![toml::from_str(text).expect("a group")]
}
