//! Secrets that would be recognised anywhere, and everything that a gateway says when it is driven into errors: they must
//! stand in none of it.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use groupcast_tests::gateway::{Process, groupcast, run};
use groupcast_tests::home::JOBS;
use groupcast_tests::token::{seconds_from_now, token};
use groupcast_tests::wait::within_time;
use groupcast_tests::{Gateway, Home, Http, Postgres, Redis, Socket};
use serde_json::json;

use super::http2_frames::{Connection, END_HEADERS, END_STREAM, HEADERS, frame, request};

/// What every secret has in it, and nothing else.
const CANARY: &str = "canary";
const KEY: &str = "canary-key-0123456789abcdef0123456789abc";
const SECRET: &str = "canary-secret-0123456789abcdef0123456789";
const PASSWORD: &str = "canary-password-1234";
/// Everything that can be said is said.
const TRACE: &str = "log = \"trace\"\n";

#[tokio::test]
async fn no_password_of_a_server_that_is_there_is_told() {
    let (redis, postgres) = (Redis::start(&[]), Postgres::start());
    redis.add_user("gateway", PASSWORD, "~* &* +@all");
    let database = postgres.database();
    let (user, place) = database.split_once('@').expect("an address names a user");
    let config = format!(
        "{}[jobs]\nstore = \"postgres\"\nurl_env = \"APP_DATABASE\"\n[layer]\nkind = \"redis\"\nurl_file = \"broker\"\n{}",
        JOBS.replace("data_dir", &format!("{TRACE}data_dir"))
            .replace("[jobs]\nretry_base = \"10ms\"\nretry_max = \"50ms\"\n", ""),
        guard()
    );
    let home = home(&config);
    home.write("broker", &redis.address_of("gateway", PASSWORD));
    let database = format!("{user}:{PASSWORD}@{place}");
    let mut process = Process::spawn(command(&home, &["serve"], &[("APP_DATABASE", &database)]));
    let address = process.address().await;
    let mut told = drive(&Http::new(address)).await;
    drop(redis);
    drop(postgres);
    // Nobody answers any more, and everybody is told so.
    told.extend(drive(&Http::new(address)).await);
    process.signal(rustix::process::Signal::TERM);
    within_time(Duration::from_secs(60), "it ends", process.ended()).await;
    told.push(process.printed());
    check(&told);
}

#[tokio::test]
async fn no_secret_of_a_configuration_that_cannot_be_used_is_told() {
    let redis = Redis::start(&[]);
    let port = redis.port();
    let jobs = |url: &str| format!("[jobs]\nstore = \"postgres\"\nurl = \"{url}\"\n{DURABLE}");
    let layer = |lines: &str| format!("[layer]\nkind = \"redis\"\n{lines}\n");
    let source = |url: &str| format!("[source.shop]\nkind = \"postgres\"\nurl = \"{url}\"\n{QUERY}");
    for (what, config) in [
        ("a database that is not there", jobs(&format!("postgres://u:{PASSWORD}@127.0.0.1:1/db"))),
        ("a database without a port", jobs(&format!("postgres://u:{PASSWORD}@127.0.0.1:port/db"))),
        (
            "a database with an option that nobody knows",
            jobs(&format!("postgres://u:{PASSWORD}@127.0.0.1:1/db?{PASSWORD}=1")),
        ),
        ("a database in words", jobs(&format!("host=127.0.0.1 port=1 user=u password={PASSWORD} x"))),
        ("a database that is none", jobs(PASSWORD)),
        ("a source that is not there", source(&format!("postgres://u:{PASSWORD}@127.0.0.1:1/db"))),
        ("a source without a port", source(&format!("postgres://u:{PASSWORD}@127.0.0.1:port/db"))),
        ("a broker that is not there", layer(&format!("url = \"redis://u:{PASSWORD}@127.0.0.1:1/0\""))),
        (
            "a broker that wants another password",
            layer(&format!("url = \"redis://nobody:{PASSWORD}@127.0.0.1:{port}/0\"")),
        ),
        ("a broker without a port", layer(&format!("url = \"redis://u:{PASSWORD}@127.0.0.1:port/0\""))),
        ("a broker without a database", layer(&format!("url = \"redis://u:{PASSWORD}@127.0.0.1:1/x\""))),
        ("a broker of another kind", layer(&format!("url = \"http://u:{PASSWORD}@127.0.0.1:1/0\""))),
        ("a broker that is none", layer(&format!("url = \"{PASSWORD}\""))),
        ("brokers", layer(&format!("hosts = [\"redis://u:{PASSWORD}@127.0.0.1:1/0\", \"{PASSWORD}\"]"))),
        (
            "a broker that is said twice",
            layer(&format!("url = \"redis://u:{PASSWORD}@h:1/0\"\nhosts = [\"{PASSWORD}\"]")),
        ),
        ("a broker that is a list", layer(&format!("url = [\"{PASSWORD}\"]"))),
        ("a broker that is a table", layer(&format!("url = {{ secret = \"{PASSWORD}\" }}"))),
        ("a text without an end", layer(&format!("url = \"redis://u:{PASSWORD}@127.0.0.1:1/0"))),
        ("a text with a bad escape", layer(&format!("url = \"redis://u:{PASSWORD}\\q@127.0.0.1:1/0\""))),
        ("a line with a rest", layer(&format!("url = \"redis://u:{PASSWORD}@127.0.0.1:1/0\" x"))),
        ("a line twice", layer(&format!("url = \"redis://127.0.0.1:1/0\"\nurl = \"{PASSWORD}\""))),
        ("a key that nobody knows", layer(&format!("password = \"{PASSWORD}\""))),
        ("a NATS that is not there", format!("[layer]\nkind = \"nats\"\nurl = \"nats://u:{PASSWORD}@127.0.0.1:1\"\n")),
        ("keys of encryption", layer(&format!("url = \"redis://127.0.0.1:1/0\"\nencryption_keys = \"{PASSWORD}\""))),
        ("keys of no dialect", layer(&format!("url = \"redis://127.0.0.1:1/0\"\nencryption_keys = [\"{PASSWORD}\"]"))),
        ("a secret of a backend", format!("{BACKEND}secret = \"{PASSWORD}\"\nsecret_env = \"APP_SECRET\"\n")),
        ("a short secret of a backend", format!("{BACKEND}secret = \"canary\"\n")),
        ("a password in an address of a backend", BACKEND.replace("127.0.0.1:1", &format!("u:{PASSWORD}@127.0.0.1:1"))),
        (
            "a key in the place of a hash",
            format!("[[auth.api_key]]\nname = \"x\"\nsha256 = \"{KEY}\"\nscopes = {{ send = [\"*\"] }}\n"),
        ),
    ] {
        let home = home(&format!("[server]\nlisten = \"127.0.0.1:0\"\n{TRACE}data_dir = \"data\"\n{config}"));
        let mut told = Vec::new();
        for arguments in [&["check"][..], &["check", "--print"], &["jobs", "list"]] {
            told.push(printed(&home, arguments).await);
        }
        told.push(served(&home).await);
        let shown: Vec<&String> = told.iter().filter(|text| text.contains(CANARY)).collect();
        assert!(shown.is_empty(), "{what}: {shown:?}");
    }
}

#[tokio::test]
async fn no_secret_of_the_environment_is_told() {
    let home = home(&format!("[server]\nlisten = \"127.0.0.1:0\"\n{TRACE}data_dir = \"data\"\n"));
    for (name, value) in [
        ("GROUPCAST_LAYER__URL", PASSWORD),
        ("GROUPCAST_LAYER__URI", PASSWORD),
        ("GROUPCAST_JOBS__URL", PASSWORD),
        ("GROUPCAST_LAYER__ENCRYPTION_KEYS", PASSWORD),
        ("GROUPCAST_AUTH__JWT_SECRET", SECRET),
        ("GROUPCAST_AUTH__API_KEYS", KEY),
    ] {
        for arguments in [&["check"][..], &["check", "--print"], &["serve", "--listen", "nowhere"]] {
            let output = run(command(&home, arguments, &[(name, value)])).await;
            let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            check(&told);
        }
    }
}

#[tokio::test]
async fn no_credential_that_is_shown_is_told() {
    let config = JOBS.replace("data_dir", &format!("{TRACE}data_dir")) + &guard();
    let gateway = Gateway::start_in(Arc::new(home(&config))).await;
    let mut told = drive(&gateway.http()).await;
    // Over HTTP/2, whose library has much to say.
    for credential in [KEY, &user()] {
        let bearer = format!("Bearer {credential}");
        let fields = request("GET", "/v1/groups", &[("authorization", &bearer)]);
        let mut connection = Connection::open(gateway.address()).await;
        connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields)).await;
        connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2, &fields)).await;
        told.push(String::from_utf8_lossy(&connection.hung_up().await.body).into_owned());
    }
    // In places where no credential belongs.
    let mut socket = Socket::open(&gateway).await;
    let command = json!({"type": "authenticate", "token": format!("{KEY}x")});
    told.push(socket.command(command).await.to_string());
    told.push(socket.command(json!({"type": "authenticate", "token": {"canary": 1}})).await.to_string());
    gateway.terminate();
    let printed = gateway.printed();
    gateway.ended().await;
    told.push(printed);
    check(&told);
}

const DURABLE: &str = r#"
[source.shop]
kind = "sqlite"
path = "source.db"
[[query]]
id = 1
name = "one"
source = "shop"
sql = "select 1 as one"
[[consumer]]
name = "queries"
group = "work"
type = "execute_query"
run = "query"
"#;
const QUERY: &str = "[[query]]\nid = 1\nname = \"one\"\nsource = \"shop\"\nsql = \"select 1 as one\"\n";
const BACKEND: &str = "[[consumer]]\nname = \"b\"\ngroup = \"b\"\ntype = \"b\"\nrun = \"http\"\nurl = \"http://127.0.0.1:1/\"\nallow_private = true\n";

fn guard() -> String {
    "\n[auth]\njwt_secret_file = \"jwt.secret\"\napi_keys_file = \"api.keys\"\n".to_owned()
}

fn home(config: &str) -> Home {
    let home = Home::new(config);
    home.write("jwt.secret", SECRET);
    home.write("api.keys", KEY);
    home
}

fn user() -> String {
    token(
        SECRET,
        &json!({"sub": "alice", "exp": seconds_from_now(600), "subscribe": ["*"], "send": ["*"], "query": ["*"]}),
    )
}

fn command(home: &Home, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = groupcast(home, arguments);
    command.envs(environment.iter().copied()).env("APP_SECRET", SECRET);
    command
}

async fn printed(home: &Home, arguments: &[&str]) -> String {
    let output = run(command(home, arguments, &[])).await;
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What `serve` prints until it has given up, or has answered that it is not ready.
async fn served(home: &Home) -> String {
    let mut process = Process::spawn(command(home, &["serve"], &[]));
    let mut told = String::new();
    if let Some(address) = process.started().await {
        let http = Http::new(address);
        for path in ["/readyz", "/metrics", "/v1/groups/g"] {
            told += &http.get(path).await.text();
        }
        process.signal(rustix::process::Signal::TERM);
    }
    within_time(Duration::from_secs(60), "it ends", process.ended()).await;
    told + &process.printed()
}

/// Asks for all sorts of things with credentials that are good, nearly good and in the wrong place; what comes back.
async fn drive(http: &Http) -> Vec<String> {
    let mut told = Vec::new();
    let alice = user();
    for credential in [KEY, &alice, &format!("{KEY}x"), &format!("{alice}x"), &format!("x\t{KEY}")] {
        let bearer = format!("Bearer {credential}");
        let basic = format!("Basic {credential}");
        for authorization in [&bearer, &basic] {
            let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
            for (method, path, body) in [
                ("GET", "/readyz", ""),
                ("GET", "/metrics", ""),
                ("GET", "/v1/connections", ""),
                ("GET", "/v1/jobs", ""),
                ("GET", "/v1/nowhere", ""),
                ("PUT", "/v1/groups", ""),
                ("POST", "/v1/groups/g/send", r#"{"type":"x"}"#),
                ("POST", "/v1/groups/g/send", "nonsense"),
                ("POST", "/v1/groups/my_group/send", r#"{"type":"execute_query","query":"broken","max_attempts":1}"#),
                ("POST", "/v1/queries/numbers", r#"{"count":3}"#),
            ] {
                told.push(http.request(method, path, &headers, body.into()).await.text());
            }
        }
    }
    for key in ["token", "api_key", "access_token"] {
        told.push(http.get(&format!("/v1/groups?{key}={KEY}")).await.text());
    }
    told
}

fn check(told: &[String]) {
    let at = told.iter().find_map(|text| Some((text, text.find(CANARY)?)));
    if let Some((text, at)) = at {
        let from = (at.saturating_sub(300)..=at).find(|from| text.is_char_boundary(*from)).unwrap_or(at);
        panic!("a secret was told: …{:.600}…", &text[from..]);
    }
    let signature = user();
    let signature = signature.rsplit('.').next().expect("three parts");
    assert!(told.iter().all(|text| !text.contains(signature)), "a signature was told");
}
