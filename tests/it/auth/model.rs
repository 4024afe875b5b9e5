//! Three tenants, in each of which somebody is called as in the others, do what comes into their heads at one gateway, by every
//! door; a model says what has to be let through, and that is next to nothing: what begins with the tenant's own name.

use std::collections::HashMap;

use groupcast_tests::chance::Chance;
use groupcast_tests::home::JOBS;
use groupcast_tests::{Gateway, Http, Socket};
use serde_json::{Value, json};

use super::{asked, guarded_with, user};

const TENANTS: [&str; 3] = ["a", "ab", "a-b"];
const NAMES: [&str; 2] = ["alice", "bob"];

/// How many operations are done, unless `GROUPCAST_MODEL_OPERATIONS` says otherwise.
const OPERATIONS: u64 = 3000;

const CONFIG: &str = r#"
[[group]]
name = "tenant.*"
history = { messages = 100, age = "1h" }

[[consumer]]
name = "tenants"
group = "tenant.*"
type = "execute_query"
run = "query"

[limits]
commands_per_second = 100000
user_rate = "100000/s"
group_rate = "100000/s"

[auth]
jwt_secret_file = "jwt.secret"
tenant_claim = "tenant"
"#;

/// Somebody of a tenant, with a socket that stays open.
struct Person {
    tenant: usize,
    name: usize,
    token: String,
    socket: Socket,
}

struct World {
    http: Http,
    chance: Chance,
    people: Vec<Person>,
    /// Jobs by their ids: of whom they are, and by which idempotency key they were asked for.
    jobs: HashMap<String, (usize, u64)>,
    /// How often something was let through, and how often refused.
    granted: u64,
    refused: u64,
    read: u64,
}

#[tokio::test]
async fn nothing_of_one_tenant_is_seen_or_done_by_another_by_whichever_door() {
    let gateway = guarded_with(JOBS, CONFIG).await;
    let mut world = World::new(&gateway).await;
    let operations = std::env::var("GROUPCAST_MODEL_OPERATIONS").ok().map(|text| text.parse().expect("a number"));
    let operations = operations.unwrap_or(OPERATIONS);
    for _ in 0..operations {
        world.turn().await;
    }
    for at in 0..world.people.len() {
        world.look_at_messages(at).await;
    }
    let World { granted, refused, read, jobs, .. } = world;
    eprintln!(
        "{operations} operations: {granted} granted, {refused} refused, {read} messages read, {} jobs",
        jobs.len()
    );
    let enough = operations / 30;
    assert!(granted > enough && refused > enough && read > enough && jobs.len() > 5, "it tries nothing");
}

impl World {
    async fn new(gateway: &Gateway) -> Self {
        let mut people = Vec::new();
        for (tenant, name) in (0..TENANTS.len()).flat_map(|tenant| (0..NAMES.len()).map(move |name| (tenant, name))) {
            let all = json!({"tenant": TENANTS[tenant], "subscribe": ["*"], "send": ["*"], "query": ["numbers"]});
            let token = user(NAMES[name], &all);
            let bearer = format!("Bearer {token}");
            let socket = Socket::open_at(gateway, "/ws", &[("authorization", &bearer)]).await;
            people.push(Person { tenant, name, token, socket });
        }
        let (http, chance) = (gateway.http(), Chance::new());
        Self { http, chance, people, jobs: HashMap::new(), granted: 0, refused: 0, read: 0 }
    }

    async fn turn(&mut self) {
        let at = self.below(self.people.len());
        match self.below(14) {
            0 => self.command(at, "subscribe").await,
            1 => self.command(at, "unsubscribe").await,
            2 => self.command(at, "members").await,
            3 => self.command(at, "history").await,
            4 | 5 => self.command(at, "group_send").await,
            6 | 7 => self.send(at).await,
            8 => self.send_batch(at).await,
            9 => self.read(at).await,
            10 => self.become_another(at).await,
            11 => self.ask(at).await,
            12 => self.look_at_a_job(at).await,
            _ => self.look_at_messages(at).await,
        }
    }

    /// A group of somebody's, and whether that is the tenant of this person.
    fn group(&mut self, at: usize) -> (String, bool) {
        let of = self.below(TENANTS.len() + 1);
        let room = self.below(3);
        match TENANTS.get(of) {
            Some(tenant) => (format!("tenant.{tenant}.room.{room}"), of == self.people[at].tenant),
            None => (["room", "tenant.a", "tenant.abc.room"][room].to_owned(), false),
        }
    }

    fn message(&self, at: usize) -> Value {
        json!({"type": "chat", "of": TENANTS[self.people[at].tenant]})
    }

    async fn command(&mut self, at: usize, kind: &str) {
        let (group, own) = self.group(at);
        let mut command = json!({"type": kind, "group": group});
        if kind == "group_send" {
            command["message"] = self.message(at);
        }
        let answer = self.people[at].socket.command(command).await;
        // What is unsubscribed from is the socket's own anyway.
        let fits = matches!(answer["code"].as_str(), Some("already_subscribed" | "not_subscribed"));
        if fits {
            return;
        }
        self.count(answer["type"] != "error", own, &answer);
        for entry in answer["messages"].as_array().into_iter().flatten() {
            self.check_message(at, &entry["message"]);
        }
    }

    async fn send(&mut self, at: usize) {
        let (group, own) = self.group(at);
        let (message, token) = (self.message(at).to_string(), self.people[at].token.clone());
        let path = format!("/v1/groups/{group}/send");
        let answer = asked(&self.http, "POST", &path, Some(&token), &message).await;
        self.count(answer.status == 202, own, &answer.json());
    }

    async fn send_batch(&mut self, at: usize) {
        let groups: Vec<_> = (0..3).map(|_| self.group(at)).collect();
        let (message, key) = (self.message(at), self.below(20));
        let entry = |group: &str| json!({"group": group, "message": message, "idempotency_key": format!("{key}")});
        let batch: Vec<_> = groups.iter().map(|(group, _)| entry(group)).collect();
        let token = self.people[at].token.clone();
        let answer = asked(&self.http, "POST", "/v1/send", Some(&token), &json!(batch).to_string()).await.expect(202);
        for ((_, own), result) in groups.iter().zip(answer["results"].as_array().expect("a result for each")) {
            self.count(result["status"] == 202, *own, result);
        }
    }

    async fn read(&mut self, at: usize) {
        let (group, own) = self.group(at);
        let token = self.people[at].token.clone();
        let path = [
            format!("/v1/groups/{group}/history"),
            format!("/v1/groups/{group}/members"),
            format!("/v1/groups/{group}"),
        ];
        let path = &path[self.below(3)];
        let answer = asked(&self.http, "GET", path, Some(&token), "").await;
        // A group outside of `tenant.*` keeps nothing: that is told to nobody who may not read it.
        self.count(answer.status == 200, own, &answer.json());
        for entry in answer.json()["messages"].as_array().into_iter().flatten() {
            self.check_message(at, &entry["message"]);
        }
    }

    /// The socket of one shows the token of another, or its own anew.
    async fn become_another(&mut self, at: usize) {
        let to = self.below(self.people.len());
        let token = self.people[to].token.clone();
        let answer = self.people[at].socket.command(json!({"type": "authenticate", "token": token})).await;
        self.count(answer["type"] == "authenticated", at == to, &answer);
    }

    /// Asks a query with one of few keys, as every other person does, too.
    async fn ask(&mut self, at: usize) {
        let key = self.chance.number() % 5;
        let headers =
            [("authorization", format!("Bearer {}", self.people[at].token)), ("idempotency-key", key.to_string())];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let record = self.http.request("POST", "/v1/queries/numbers", &headers, b"{}".to_vec()).await.record();
        let id = record["id"].as_str().expect("a job").to_owned();
        let known = *self.jobs.entry(id.clone()).or_insert((at, key));
        let (of, asked) = (&self.people[known.0], &self.people[at]);
        assert_eq!((of.tenant, of.name, known.1), (asked.tenant, asked.name, key), "job {id} is answered to another");
    }

    async fn look_at_a_job(&mut self, at: usize) {
        if self.jobs.is_empty() {
            return;
        }
        let nth = self.below(self.jobs.len());
        let (id, (of, _)) = self.jobs.iter().nth(nth).map(|(id, job)| (id.clone(), *job)).expect("there are as many");
        let token = self.people[at].token.clone();
        let what = ["", "/result"][self.below(2)];
        let answer = asked(&self.http, "GET", &format!("/v1/jobs/{id}{what}"), Some(&token), "").await;
        // Its own may not be through.
        self.count(answer.status != 404, of == at, &answer.json());
    }

    async fn look_at_messages(&mut self, at: usize) {
        for frame in self.people[at].socket.pending().await {
            match frame["type"].as_str() {
                Some("message") => self.check_message(at, &frame["message"]),
                Some("gap" | "joined" | "left") => {}
                _ => panic!("nobody asked for {frame}"),
            }
        }
    }

    fn check_message(&mut self, at: usize, message: &Value) {
        assert_eq!(message["of"], TENANTS[self.people[at].tenant], "{message} came to another tenant");
        self.read += 1;
    }

    #[track_caller]
    fn count(&mut self, granted: bool, own: bool, answer: &Value) {
        assert_eq!(granted, own, "{answer}");
        *(if granted { &mut self.granted } else { &mut self.refused }) += 1;
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.chance.number() % bound as u64) as usize
    }
}
