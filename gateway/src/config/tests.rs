mod mistakes;

use std::time::Duration;

use super::*;

/// A temporary `groupcast.toml` with this text, and what loading it gives.
fn load(text: &str, environment: &[(&str, &str)], flags: Vec<Setting>) -> Result<Config, Vec<(String, String)>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("groupcast.toml");
    std::fs::write(&path, text).expect("the temporary folder is writable");
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let sources = Sources { file: Some(path), text: None, environment, flags };
    let told = |problems: Problems| problems.0.into_iter().map(|p| (p.key, p.message)).collect();
    Config::load(&sources).map(|loaded| loaded.config).map_err(told)
}

/// Loading `text` tells exactly these keys, with these words in their messages.
fn refused(text: &str, expected: &[(&str, &str)]) {
    let problems = load(text, &[], vec![]).expect_err(text);
    let keys: Vec<&str> = problems.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, expected.iter().map(|(key, _)| *key).collect::<Vec<_>>(), "{problems:#?}");
    for ((_, message), (key, words)) in problems.iter().zip(expected) {
        assert!(message.contains(words), "{key}: {message:?} lacks {words:?}");
    }
}

const COMPLETE: &str = r#"
[server]
listen = "[::1]:9999"
[limits]
message_bytes = "128KiB"
[layer]
channel_capacity = [{ pattern = "http.*", capacity = 5 }]
[server.tls]
cert = "tls/cert.pem"
key = "tls/key.pem"
[[group]]
name = "room.*"
history = { messages = 50, age = "10m" }
presence = true
[source.demo]
kind = "sqlite"
path = "demo.db"
[[query]]
id = 7
name = "worst_routes"
source = "demo"
sql = "select 1 where :origin = 'JFK'"
params.origin = { type = "text", enum = ["JFK", "LGA"], default = "JFK" }
[[consumer]]
name = "queries"
group = "my_group"
type = "execute_query"
run = "query"
"#;

#[test]
fn nothing_at_all_is_a_configuration() {
    let loaded = Config::load(&Sources::default()).expect("the defaults pass their own checks");
    assert_eq!(loaded.config.server.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(loaded.config.limits.message_bytes, Size(65536));
}

#[test]
fn a_complete_file() {
    let config = load(COMPLETE, &[], vec![]).expect("valid");
    assert_eq!(config.server.listen.to_string(), "[::1]:9999");
    assert_eq!(config.query[0].params["origin"].kind, ParamKind::Text);
    assert_eq!(config.consumer[0].durability, Durability::Disk);
    let history = HistoryConfig { messages: 50, age: Time(Duration::from_secs(600)) };
    assert_eq!((config.group[0].history, config.group[0].presence), (Some(history), true));
    let tls = config.server.tls.as_ref().expect("it is there");
    assert!(tls.cert.is_absolute() && tls.cert.ends_with("tls/cert.pem") && tls.key.ends_with("tls/key.pem"));
    assert!(config.source["demo"].path.as_ref().is_some_and(|p| p.is_absolute() && p.ends_with("demo.db")));
}

#[test]
fn what_makes_a_query_live() {
    let live = |more: &str| {
        format!("{COMPLETE}\n[[query]]\nid = 8\nname = \"live\"\nsource = \"demo\"\nsql = \"select 1\"\n{more}")
    };
    let config =
        load(&live("refresh = \"250ms\"\ntags = [\"flights\"]\nkey = [\"dest\"]"), &[], vec![]).expect("valid");
    assert_eq!(config.query[1].refresh, Some(Time(Duration::from_millis(250))));
    assert_eq!((config.query[0].refresh, config.limits.live_queries), (None, 1000));
    refused(&live("refresh = \"249ms\""), &[("query[1].refresh", "250 ms")]);
    let names = "tags = [\"a\", \"\", \"a\"]\nkey = [\"\"]";
    let expected = [("query[1].tags[1]", "1 to 99"), ("query[1].tags[2]", "twice"), ("query[1].key[0]", "1 to 99")];
    refused(&live(names), &expected);
}

#[test]
fn groups_of_live_queries_are_not_configured() {
    refused("[[group]]\nname = \"query.*\"", &[("group[0].name", "live queries")]);
}

#[test]
fn flags_win_over_environment_over_file() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"\nnode = \"file\"\n[limits]\nconnections = 5";
    let flag = Setting { flag: "--listen", key: "server.listen", value: "127.0.0.1:3".to_owned() };
    let environment = [
        ("GROUPCAST_SERVER__LISTEN", "127.0.0.1:2"),
        ("GROUPCAST_SERVER__NODE", "7"),
        ("GROUPCAST_LIMITS__LOG_BYTES", "2MiB"),
        ("GROUPCAST_LIMITS__CONNECTIONS_PER_ADDRESS", "12"),
        ("GROUPCAST_URL", "http://no.setting"),
        ("HOME", "/root"),
    ];
    let config = load(file, &environment, vec![flag]).expect("valid");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:3");
    assert_eq!((config.server.node.as_str(), config.limits.connections), ("7", 5));
    assert_eq!((config.limits.log_bytes, config.limits.connections_per_address), (Size(2 << 20), 12));
}

#[test]
fn a_problem_names_the_variable_or_flag_that_made_it() {
    let variable = ("GROUPCAST_LIMITS__CONNECTIONS".to_owned(), "many".to_owned());
    let flags = vec![Setting { flag: "--listen", key: "server.listen", value: "here".to_owned() }];
    let sources = Sources { environment: vec![variable], flags, ..Sources::default() };
    let problems = Config::load(&sources).expect_err("both are wrong");
    let origins: Vec<_> = problems.0.iter().map(|p| (p.origin.as_str(), p.key.as_str())).collect();
    assert_eq!(origins, [("--listen", "server.listen"), ("GROUPCAST_LIMITS__CONNECTIONS", "limits.connections")]);
}

#[test]
fn a_variable_that_is_no_setting_is_told_but_secrets_are_left_alone() {
    let set = |name: &str| load("[auth]\njwt_secret_env = \"GROUPCAST_A__B\"", &[(name, "x")], vec![]);
    let keys = |name: &str| set(name).expect_err("auth").into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys("GROUPCAST_A__B"), ["auth.jwt_secret_env"], "too short, and no setting");
    assert_eq!(keys("GROUPCAST_SERVR__LISTEN"), ["servr"]);
    assert_eq!(keys("GROUPCAST___LISTEN"), [".listen"]);
}

#[test]
fn unknown_keys_are_told_all_together_with_the_nearest_known() {
    refused(
        "[limit]\nx = 1\n[limits]\nmesage_bytes = 1\nlog_byte = 2\n[[consumer]]\nnam = \"x\"",
        &[
            ("limits.log_byte", "did you mean `log_bytes`?"),
            ("limits.mesage_bytes", "did you mean `message_bytes`?"),
            ("consumer[0].nam", "did you mean `name`?"),
            ("consumer[0].name", "is missing"),
            ("limit", "did you mean `limits`?"),
        ],
    );
}

#[test]
fn wrong_types_and_values_name_their_key() {
    refused(
        "[server]\nlisten = 8000\nrole = \"gatway\"\norigins = [\"https://a.b\", 7]\n[limits]\nconnections = -1\nping_interval = \"soon\"\n[layer]\nkind = \"memroy\"\n[source]\nx = 1",
        &[
            ("server.listen", "a text is needed"),
            ("server.origins[1]", "a text is needed"),
            ("server.role", "did you mean `gateway`?"),
            ("limits.connections", "a whole number is needed"),
            ("limits.ping_interval", "is not a duration"),
            ("layer.kind", "`memory`"),
            ("source.x", "a table is needed"),
        ],
    );
}

#[test]
fn what_is_not_toml_is_told_with_its_place() {
    refused("[server\nlisten", &[("", "line 1, column")]);
    let secret = load("[layer]\nurl = \"redis://u:canary@h\n", &[], vec![]).expect_err("a text without an end");
    assert!(secret[0].1.contains("line 2") && !secret[0].1.contains("canary"), "{secret:?}");
    let secret = load("[layer]\nencryption_keys = \"canary\"", &[], vec![]).expect_err("no list");
    assert!(secret[0].1.contains("a list is needed") && !secret[0].1.contains("canary"), "{secret:?}");
}

#[test]
fn operators_have_an_address_of_their_own_and_on_loopback_without_auth() {
    let config = load("[server]\nops_listen = \"localhost:9000\"", &[], vec![]).expect("a loopback address");
    assert_eq!(config.server.ops_listen, Some("127.0.0.1:9000".parse().expect("an address")));
    refused("[server]\nops_listen = \"0.0.0.0:9000\"", &[("server.ops_listen", "without [auth]")]);
    refused("[server]\nops_listen = \"9000\"", &[("server.ops_listen", "is not an address")]);
    let same = "[server]\nlisten = \"127.0.0.1:9000\"\nops_listen = \"127.0.0.1:9000\"";
    refused(same, &[("server.ops_listen", "another port")]);
}

#[test]
fn a_broker_is_checked() {
    let layer = |text: &str| format!("[layer]\n{text}");
    let fine = |text: &str| load(&layer(text), &[("BROKER", "redis://:s3cret@127.0.0.1")], vec![]).expect(text);
    let redis = "kind = \"redis\"\nurl = \"redis://u:s3cret@127.0.0.1:6379/0\"";
    for text in
        [redis, "kind = \"redis\"\nurl_env = \"BROKER\"", "kind = \"nats\"\nhosts = [\"nats://a\", \"tls://b\"]"]
    {
        let config = fine(text);
        assert!(!config.layer.addresses().is_empty());
        assert!(!config.print().contains("s3cret") && !format!("{config:?}").contains("s3cret"));
    }
    refused(&layer("url = \"redis://x\""), &[("layer.url", "is for kind")]);
    refused(&layer("kind = \"redis\""), &[("layer.url", "is missing")]);
    refused(&layer("kind = \"nats\"\nurl = \"redis://x\""), &[("layer.url", "nats://")]);
    refused(&layer(&format!("{redis}\nhosts = [\"redis://a\"]")), &[("layer.url", "twice")]);
    refused(&layer("kind = \"redis\"\nhosts = [\"redis://a\", \"b:6379\"]"), &[("layer.hosts[1]", "redis://")]);
    refused(&layer(&format!("{redis}\nsentinel = \"m\"")), &[("layer.sentinel", "hosts")]);
    refused(&layer(&format!("{redis}\nprefix = \"a b\"")), &[("layer.prefix", "1 to 64")]);
    refused(&layer("serializer = \"json\""), &[("layer.serializer", "dialect")]);
    refused(&layer("dialect = \"channels_redis.core\""), &[("layer.dialect", "over Redis")]);
    refused(&layer("dialect = \"channels_redis.pubsub\""), &[("layer.dialect", "over Redis")]);
    refused(&layer("dialect = \"channels_nats\""), &[("layer.dialect", "over NATS")]);
    refused(&layer(&format!("{redis}\ndialect = \"channels_nats\"")), &[("layer.dialect", "kind = \"nats\"")]);
    let nats = "kind = \"nats\"\nurl = \"nats://a\"";
    refused(&layer(&format!("{nats}\ndialect = \"channels_redis.core\"")), &[("layer.dialect", "channels_nats")]);
    let nats = format!("{nats}\ndialect = \"channels_nats\"");
    assert_eq!(fine(&nats).layer.dialect, Some(Dialect::ChannelsNats));
    for redis_only in ["serializer = \"json\"", "encryption_keys = [\"a\"]", "random_prefix_length = 0"] {
        let key = format!("layer.{}", redis_only.split(' ').next().expect("a key"));
        refused(&layer(&format!("{nats}\n{redis_only}")), &[(&*key, "for channels_redis")]);
    }
    let pubsub = format!("{redis}\ndialect = \"channels_redis.pubsub\"");
    fine(&format!("{pubsub}\nserializer = \"json\""));
    let prefix = layer(&format!("{pubsub}\nrandom_prefix_length = 5"));
    refused(&prefix, &[("layer.random_prefix_length", "channels_redis.core")]);
    let core = format!("{redis}\ndialect = \"channels_redis.core\"");
    let config = fine(&format!("{core}\nencryption_keys = [\"k3y\"]"));
    assert!(config.layer.keys() == ["k3y"] && !config.print().contains("k3y"));
    refused(
        &layer(&format!("{core}\nencryption_keys = [\"a\"]\nencryption_keys_env = \"BROKER\"")),
        &[("layer.encryption_keys", "several")],
    );
    let nats = "kind = \"nats\"\nurl = \"nats://127.0.0.1:4222\"";
    fine(&format!("{nats}\nreplicas = 3\nmonitoring = \"[::1]:8222\"\ndurability = \"fsync\""));
    refused(&layer(&format!("{nats}\ndurability = \"fsync\"")), &[("layer.monitoring", "is missing")]);
    refused(&layer(&format!("{nats}\nmonitoring = \"http://x\"")), &[("layer.monitoring", "HOST:PORT")]);
    refused(&layer(&format!("{redis}\nmonitoring = \"a:1\"")), &[("layer.monitoring", "take it out")]);
    refused(&layer(&format!("{redis}\nreplicas = 3")), &[("layer.replicas", "nats")]);
    refused(&layer(&format!("{nats}\nreplicas = 2")), &[("layer.replicas", "1, 3 or 5")]);
    refused(&layer(&format!("{nats}\nprefix = \"a.b\"")), &[("layer.prefix", "leave them out")]);
    refused("[jobs]\nsingle_gateway = true", &[("jobs.single_gateway", "take it out")]);
}

#[test]
fn a_broker_and_a_queue_of_one_gateway_do_not_go_together() {
    let consumer = "[[consumer]]\nname = \"e\"\ngroup = \"g\"\ntype = \"t\"\nrun = \"embedded\"\n";
    let text = format!("[layer]\nkind = \"redis\"\nurl = \"redis://x\"\n{consumer}");
    refused(&text, &[("jobs.store", "single_gateway")]);
    assert!(load(&format!("{text}[jobs]\nsingle_gateway = true"), &[], vec![]).is_ok());
    assert!(load(&format!("{text}durability = \"memory\""), &[], vec![]).is_ok());
}

const BACKEND: &str = "[[consumer]]\nname = \"h\"\ngroup = \"g\"\ntype = \"t\"\nrun = \"http\"\n";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn a_backends_secret_is_read_and_never_shown() {
    let text = format!("{BACKEND}url = \"https://example.org/jobs\"\n");
    let from_variable = load(&format!("{text}secret_env = \"S\""), &[("S", SECRET)], vec![]).expect("fine");
    let in_the_file = load(&format!("{text}secret = \"{SECRET}\""), &[], vec![]).expect("fine");
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("secret"), format!("{SECRET}\n")).expect("written");
    std::fs::write(folder.path().join("groupcast.toml"), format!("{text}secret_file = \"secret\"")).expect("written");
    let from_file = Config::load(&Sources::file(folder.path().join("groupcast.toml"))).expect("fine").config;
    for config in [from_variable, in_the_file, from_file] {
        let secret = config.consumer[0].secret.as_ref().expect("read");
        assert_eq!(secret.keys().expect("good").len(), 1);
        assert!(!config.print().contains("MfKQ") && !format!("{config:?}").contains("MfKQ"));
    }
}

#[test]
fn a_backend_is_checked() {
    refused(BACKEND, &[("consumer[0].url", "is missing")]);
    let with = |lines: &str| format!("{BACKEND}{lines}");
    refused(&with("url = \"http://127.0.0.1/\""), &[("consumer[0].url", "allow_private")]);
    refused(&with("url = \"http://a:b@example.org/\""), &[("consumer[0].url", "secret_env")]);
    let good = with("url = \"http://127.0.0.1/\"\nallow_private = true\n");
    assert!(load(&good, &[], vec![]).is_ok());
    refused(&format!("{good}secret = \"c2hvcnQ=\""), &[("consumer[0].secret", "5 bytes")]);
    refused(&format!("{good}secret_env = \"S\""), &[("consumer[0].secret_env", "`S` is not set")]);
    refused(&format!("{good}secret_file = \"absent\""), &[("consumer[0].secret_file", "cannot be read")]);
    refused(&format!("{good}secret_file = \"a\"\nsecret_env = \"S\""), &[("consumer[0].secret", "several ways")]);
    refused(&format!("{good}max_bytes = 0"), &[("consumer[0].max_bytes", "more than 0")]);
    let other = good.replace("\"http\"", "\"embedded\"");
    refused(&other, &[("consumer[0].url", "`run = \"http\"` alone"), ("consumer[0].allow_private", "alone")]);
}

#[test]
fn a_rate_is_checked() {
    let with = |lines: &str| COMPLETE.replace("run = \"query\"", &format!("run = \"query\"\n{lines}"));
    let config = load(&with("rate = \"10/s\"\nrate_burst = 3"), &[], vec![]).expect("fine");
    assert!(config.print().contains("rate = \"10/s\""));
    refused(&with("rate = \"10\""), &[("consumer[0].rate", "is not a rate")]);
    refused(&with("rate = 10"), &[("consumer[0].rate", "a rate such as")]);
    refused(&with("rate_burst = 3"), &[("consumer[0].rate_burst", "`rate`, which is not set")]);
    refused(&with("rate = \"1/h\"\nrate_burst = 0"), &[("consumer[0].rate_burst", "from 1 to")]);
}

#[cfg(feature = "postgres")]
#[test]
fn the_address_of_a_shared_store_is_said_once_and_never_shown() {
    let jobs = |rest: &str| format!("[jobs]\nstore = \"postgres\"\n{rest}");
    refused(&jobs(""), &[("jobs.url", "url, url_env and url_file")]);
    refused(&jobs("url = \"postgres://a\"\nurl_env = \"B\""), &[("jobs.url", "said twice")]);
    refused("[jobs]\nurl = \"postgres://a\"", &[("jobs.url", "store = \"postgres\"")]);
    refused(&jobs("url_env = \"JOBS\""), &[("jobs.url_env", "`JOBS` is not set")]);
    refused(&jobs("url_file = \"no.url\""), &[("jobs.url_file", "cannot be read")]);
    refused(&jobs("url = \"postgres://h\"\nschema = \"Mine\""), &[("jobs.schema", "a-z")]);
    let secret = "postgres://me:geheim@db/jobs";
    let from_file = load(&jobs(&format!("url = \"{secret}\"")), &[], vec![]).expect("valid");
    let from_variable = load(&jobs("url_env = \"JOBS\""), &[("JOBS", secret)], vec![]).expect("valid");
    for config in [from_file, from_variable] {
        assert_eq!(config.jobs.address().map(Hidden::expose), Some(secret));
        let shown = format!("{config:?}{}", config.print());
        assert!(!shown.contains("geheim"), "{shown}");
        config.check().expect("what was loaded is valid");
    }
}

#[cfg(feature = "postgres")]
#[test]
fn the_address_of_a_source_is_said_once_and_never_shown() {
    let source = |rest: &str| format!("[source.a]\nkind = \"postgres\"\n{rest}");
    refused(&source(""), &[("source.a.url", "url, url_env and url_file")]);
    refused(&source("url = \"postgres://a\"\nurl_env = \"B\""), &[("source.a.url", "said twice")]);
    refused(&source("url = \"postgres://a\"\npath = \"b\""), &[("source.a.path", "sqlite")]);
    refused(&source("url = \"postgres://a\"\npool = 0"), &[("source.a.pool", "from 1 to 1000")]);
    refused(&source("url = \"postgres://a\"\nrole = \"\""), &[("source.a.role", "empty")]);
    refused("[source.a]\nkind = \"sqlite\"\npath = \"a\"\nurl = \"postgres://a\"", &[("source.a.url", "postgres")]);
    refused(&source("url_env = \"DATA\""), &[("source.a.url_env", "`DATA` is not set")]);
    let secret = "postgres://me:s3cret@db/data";
    let config = load(&source("url_env = \"DATA\""), &[("DATA", secret)], vec![]).expect("valid");
    assert_eq!(config.source["a"].address().map(Hidden::expose), Some(secret));
    let shown = format!("{config:?}{}", config.print());
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn without_auth_only_loopback_is_listened_on() {
    for address in ["0.0.0.0:8000", "[::]:8000", "192.168.1.1:80"] {
        refused(&format!("[server]\nlisten = \"{address}\""), &[("server.listen", "without [auth]")]);
    }
    assert!(load("[server]\nlisten = \"localhost:0\"", &[], vec![]).is_ok());
    let key = "0123456789abcdef0123456789abcdef";
    let open = "[server]\nlisten = \"0.0.0.0:8000\"\n[auth]\napi_keys_env = \"KEYS\"";
    let config = load(open, &[("KEYS", key)], vec![]).expect("with [auth] any address");
    let shown = format!("{config:?}{}", config.print());
    assert!(!shown.contains(key) && shown.contains("api_keys_env = \"KEYS\""), "{shown}");
}

#[test]
fn auth_says_what_is_missing_and_what_is_too_weak() {
    let auth = |text: &str| format!("[auth]\n{text}");
    refused(&auth(""), &[("auth", "lets nobody in")]);
    refused(&auth("jwt_secret = \"x\""), &[("auth.jwt_secret", "known are `jwt_secret_env`")]);
    refused(&auth("anonymous = { subscribe = [\"a b\"] }"), &[("auth.anonymous", "position 1")]);
    refused(&auth("anonymous = { publish = [] }"), &[("auth.anonymous.publish", "unknown key")]);
    refused(&auth("jwt_secret_env = \"A\"\njwt_secret_file = \"b\""), &[("auth.jwt_secret_env", "several ways")]);
    refused(&auth("api_keys_env = \"NOT_THERE\""), &[("auth.api_keys_env", "`NOT_THERE` is not set")]);
    refused(&auth("jwt_secret_file = \"no-file\""), &[("auth.jwt_secret_file", "cannot be read")]);
    let weak = |name: &str, value: &str| {
        let problems = load(&auth(&format!("{name} = \"S\"")), &[("S", value)], vec![]).expect_err(value);
        let [(key, message)] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!(*key, format!("auth.{name}"));
        assert!(message.contains("openssl") || message.contains("set it to"), "{message}");
        assert!(value.len() < 4 || !message.contains(value), "{message}");
        message.clone()
    };
    assert!(weak("jwt_secret_env", "0123456789abcdef0123456789abcde").contains("31 characters"));
    assert!(weak("api_keys_env", "0123456789abcdef0123456789abcdef,short").contains("key 2 has 5 characters"));
    assert!(weak("api_keys_env", "0123456789abcdef 0123456789abcdef").contains("header"));
    assert!(weak("api_keys_env", " , ").contains("without a key"));
    assert!(load(&auth("anonymous = { query = [\"*\"] }"), &[], vec![]).is_ok());
    let set = |url: &str| auth(&format!("issuer = \"i\"\naudience = \"a\"\njwks_url = \"{url}\""));
    for url in ["https://issuer.example/keys", "http://127.0.0.1:9/keys", "http://[::1]/", "http://localhost:9/"] {
        assert!(load(&set(url), &[], vec![]).is_ok(), "{url}");
    }
    for url in ["http://issuer.example/", "ftp://127.0.0.1/", "file:///etc/passwd", "https://u:p@issuer.example/", "x"]
    {
        refused(&set(url), &[("auth.jwks_url", "https://")]);
    }
    let bare = "jwks_url = \"https://issuer.example/keys\"\njwks_interval = \"10ms\"\nleeway = \"2m\"";
    let keys = [
        ("auth.jwks_interval", "1s"),
        ("auth.audience", "missing"),
        ("auth.issuer", "missing"),
        ("auth.leeway", "minute"),
    ];
    refused(&auth(bare), &keys);
    let entry = format!("[[auth.api_key]]\nname = \"a\"\nsha256 = \"{}\"\n", "0".repeat(64));
    refused(&entry, &[("auth.api_key", "grant nothing")]);
    refused(&format!("{entry}scope = 1"), &[("auth.api_key[0].scope", "known are `name`, `sha256`, `scopes`")]);
    assert!(load(&format!("{entry}scopes = {{ admin = true }}"), &[], vec![]).is_ok());
}

#[test]
fn names_and_references() {
    let query = |id: u32, name: &str, source: &str| {
        format!("[[query]]\nid = {id}\nname = \"{name}\"\nsource = \"{source}\"\nsql = \"select 1\"\n")
    };
    let source = "[source.demo]\nkind = \"sqlite\"\npath = \"x\"\n";
    let twice = format!("{source}{}{}", query(1, "a", "demo"), query(1, "a", "dem"));
    refused(&twice, &[("query[1].id", "earlier"), ("query[1].name", "twice"), ("query[1].source", "`demo`")]);
    let bad = format!("[source.demo]\nkind = \"sqlite\"\n{}", query(1, "a b", "demo"));
    refused(&bad, &[("source.demo.path", "missing"), ("query[0].name", "position 1")]);
}

#[test]
fn consumers() {
    let consumer = |name: &str, group: &str, kind: &str, rest: &str| {
        format!("[[consumer]]\nname = \"{name}\"\ngroup = \"{group}\"\ntype = \"{kind}\"\nrun = \"embedded\"\n{rest}\n")
    };
    assert!(load(&consumer("a", "*", "t", ""), &[], vec![]).is_ok());
    refused(
        &(consumer("a", "g!x", "", "") + &consumer("a", "a*b", "job.result", "concurrency = 0\nmax_attempts = 0")),
        &[
            ("consumer[0].group", "'!'"),
            ("consumer[0].type", "is empty"),
            ("consumer[1].name", "twice"),
            ("consumer[1].group", "'*'"),
            ("consumer[1].type", "chain = true"),
            ("consumer[1].concurrency", "from 1"),
            ("consumer[1].max_attempts", "1 or more"),
        ],
    );
    refused(&consumer("a", "g", "t", "").replace("embedded", "query"), &[("consumer[0].run", "no [[query]]")]);
}

#[test]
fn parameters_keep_to_their_own_rules() {
    let params = |text: &str| {
        COMPLETE.replace("params.origin = { type = \"text\", enum = [\"JFK\", \"LGA\"], default = \"JFK\" }", text)
    };
    for fine in [
        "",
        "params.a = { type = \"real\", min = 0, max = 1, default = 1 }",
        "params.a = { type = \"boolean\", default = true }",
    ] {
        assert!(load(&params(fine), &[], vec![]).is_ok(), "{fine}");
    }
    refused(
        &params(
            "params.a = { type = \"text\", enum = [\"x\", 1], default = \"y\" }\n\
             params.b = { type = \"integer\", min = 5, max = 9, default = 10 }\n\
             params.c = { type = \"integer\", default = 1.5 }\n\
             params.d = { type = \"boolean\", max = 2 }\n\
             params.e = { type = \"real\", min = 2, max = 1, enum = [] }\n\
             params.2x = { type = \"text\" }",
        ),
        &[
            ("query[0].params.2x", "not a parameter's name"),
            ("query[0].params.a.enum[1]", "type is text"),
            ("query[0].params.a.default", "not in its `enum`"),
            ("query[0].params.b.default", "above max"),
            ("query[0].params.c.default", "type is integer"),
            ("query[0].params.d.type", "no min and max"),
            ("query[0].params.e.max", "less than min"),
            ("query[0].params.e.enum", "no value at all"),
        ],
    );
}

#[test]
fn limits_are_possible_and_hold_together() {
    refused(
        "[limits]\nmessage_bytes = \"2MiB\"\nheader_bytes = 100\nping_interval = \"0s\"\nconnections = 0\nconnections_per_user = 0\nmemory = \"1MiB\"",
        &[
            ("limits.publish_bytes", "2097152"),
            ("limits.connections", "1 or more"),
            ("limits.connections_per_user", "1 or more"),
            ("limits.memory", "33554432"),
            ("limits.log_bytes", "2097152"),
            ("limits.header_bytes", "8192"),
            ("limits.ping_interval", "longer than 0"),
        ],
    );
}

#[test]
fn rates_networks_and_shares_of_memory_are_what_they_say() {
    refused(
        "[limits]\nuser_rate = \"fast\"\nmemory = \"0%\"\nexempt_addresses = [\"10.0.0.1/8\"]\n[server]\ntrusted_proxies = [\"nginx\"]",
        &[
            ("server.trusted_proxies[0]", "not a network"),
            ("limits.exempt_addresses[0]", "not a network"),
            ("limits.memory", "80%"),
            ("limits.user_rate", "not a rate"),
        ],
    );
}

#[test]
fn groups_keep_what_can_be_kept_and_each_is_reached() {
    refused(
        "[[group]]\nname = \"room.*\"\nhistory = { messages = 0, age = \"0s\" }\n\
         [[group]]\nname = \"room.vip.*\"\npresence = true\n\
         [[group]]\nname = \"a\"\nhistory = { messages = 1000001 }\n[[group]]\nname = \"a\"\n[[group]]\nname = \"b!\"",
        &[
            ("group[0].history.messages", "from 1 to 1000000"),
            ("group[0].history.age", "longer than 0"),
            ("group[1].name", "`room.*` above matches first"),
            ("group[2].history.messages", "is 1000001"),
            ("group[3].name", "`a` above matches first"),
            ("group[4].name", "'!' at position 1"),
        ],
    );
    let narrow_first = "[[group]]\nname = \"room.vip\"\n[[group]]\nname = \"room.*\"\nhistory = {}";
    let config = load(narrow_first, &[], vec![]).expect("the narrower is above");
    assert_eq!(config.group[1].history, Some(HistoryConfig::default()));
    assert_eq!((config.group[0].history, config.group[0].presence), (None, false));
    refused("[[group]]\nname = \"a\"\nhistory = { mesages = 5 }", &[("group[0].history.mesages", "`messages`")]);
}

#[test]
fn tls_needs_certificate_and_key() {
    refused("[server.tls]\ncert = \"cert.pem\"", &[("server.tls.key", "is missing")]);
    refused("[server.tls]\ncert = \"\"\nkey = \"k.pem\"", &[("server.tls.cert", "name a PEM file")]);
    let variables =
        [("GROUPCAST_SERVER__TLS__CERT", "/etc/tls/cert.pem"), ("GROUPCAST_SERVER__TLS__KEY", "/etc/tls/key.pem")];
    let config = load("", &variables, vec![]).expect("valid");
    assert_eq!(config.server.tls.map(|tls| tls.key), Some("/etc/tls/key.pem".into()));
}

#[test]
fn what_is_printed_reads_back_the_same_and_has_every_default() {
    let printed = load(COMPLETE, &[], vec![]).expect("valid").print();
    for key in [
        "history_bytes = \"256MiB\"",
        "commands_per_second = 100",
        "presence = true",
        "log_bytes_per_shard = \"64MiB\"",
        "retention = \"7d\"",
        "max_rows = 10000",
        "concurrency = 2",
    ] {
        assert!(printed.contains(key), "{key} in\n{printed}");
    }
    assert_eq!(load(&printed, &[], vec![]).expect("valid").print(), printed);
}

#[test]
fn the_example_is_valid() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/groupcast.toml");
    Config::load(&Sources::file(example)).expect("the example in deploy passes its check");
}

#[test]
fn schedules_are_read_and_their_problems_told() {
    let one = |change: &str| {
        let text = "[[schedule]]\nname = 'night'\ncron = '0 3 * * *'\ntimezone = 'Europe/Berlin'\ngroup = 'work'\n\
            message = { type = 'clean', deep = { n = 1 } }\n";
        let (key, _) = change.split_once(" = ").unwrap_or_default();
        let kept = text.lines().filter(|line| key.is_empty() || !line.starts_with(&format!("{key} ")));
        kept.chain([change]).collect::<Vec<_>>().join("\n")
    };
    let config = load(&one(""), &[], vec![]).expect("valid");
    assert_eq!((config.schedule[0].name.as_str(), config.schedule[0].catch_up), ("night", CatchUp::None));
    assert!(config.print().contains("[schedule.message]"), "{}", config.print());
    refused(&one("cron = '61 * * * *'"), &[("schedule[0].cron", "not understood")]);
    refused(&one("cron = '0 0 31 4 *'"), &[("schedule[0].cron", "never comes")]);
    refused(&one("timezone = 'Berlin'"), &[("schedule[0].timezone", "Europe/Berlin")]);
    refused(&one("group = 'work.*'"), &[("schedule[0].group", "'*' at position 5")]);
    refused(&one("group = 'query.x'"), &[("schedule[0].group", "live queries")]);
    refused(&one("message = { text = 'x' }"), &[("schedule[0].message", "type")]);
    refused(&one("message = { type = 'job.result' }"), &[("schedule[0].message.type", "only consumers send")]);
    refused(&one("catch_up = 'all'"), &[("schedule[0].catch_up", "unknown value")]);
    refused("[jobs]\nlease = '500ms'", &[("jobs.lease", "must be 1s or more")]);
}
