//! Presence: who is there is right in the end, however members come and go.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use groupcast_tests::gateway::groupcast;
use groupcast_tests::home::BARE;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Raw, Socket};
use serde_json::{Value, json};

const TEXT: u8 = 0x81;

#[tokio::test]
async fn members_are_told_who_comes_and_goes() {
    let gateway = Gateway::start(&told("")).await;
    let mut watcher = Watcher::new(&gateway, "room.a").await;
    let mut guest = Socket::subscribed(&gateway, &["room.a"]).await;
    // Who came just before may be told to him, too.
    let mut joined = guest.expect("joined").await;
    if joined["member"] == watcher.socket.channel {
        joined = guest.expect("joined").await;
    }
    assert_eq!(joined, json!({"type": "joined", "group": "room.a", "member": guest.channel}), "a newcomer is in");
    watcher.until(&[&guest.channel]).await;

    let answer = guest.command(json!({"type": "unsubscribe", "group": "room.a"})).await;
    assert_eq!(answer["type"], "unsubscribed", "{answer}");
    watcher.until(&[]).await;

    gateway.http().put(&format!("/v1/groups/room.a/members/{}", guest.channel)).await.expect(204);
    watcher.until(&[&guest.channel]).await;
    gateway.http().delete(&format!("/v1/connections/{}", guest.channel)).await.expect(204);
    watcher.until(&[]).await;

    let orderly = Socket::subscribed(&gateway, &["room.a"]).await;
    watcher.until(&[&orderly.channel]).await;
    orderly.close().await;
    watcher.until(&[]).await;
    check_count(&gateway, "room.a", 1).await;
}

#[tokio::test]
async fn fifty_clients_that_are_killed_leave_nobody_behind() {
    let gateway = Gateway::start(&told("ping_interval = \"500ms\"\npong_timeout = \"1s\"\n")).await;
    let mut watcher = Watcher::new(&gateway, "room.a").await;
    let mut reset = Vec::new();
    let mut silent = Vec::new();
    for _ in 0..20 {
        reset.push(Socket::subscribed(&gateway, &["room.a"]).await);
        let mut raw = Raw::websocket(gateway.address()).await;
        raw.send_frame(TEXT, true, br#"{"type":"subscribe","group":"room.a"}"#).await;
        silent.push(raw);
    }
    let mut programs: Vec<Program> = (0..10).map(|_| Program::subscribed(&gateway, "room.a")).collect();
    watcher.until_count(50).await;
    check_count(&gateway, "room.a", 51).await;

    for program in &mut programs {
        program.kill();
    }
    for socket in reset {
        socket.vanish(true);
    }
    // The silent ones are there, and never answer a ping.
    watcher.until_count(0).await;
    check_count(&gateway, "room.a", 1).await;
    let list = gateway.http().get("/v1/groups/room.a/members").await.expect(200);
    assert_eq!(list["members"], json!([watcher.socket.channel]));
    drop(silent);
}

#[tokio::test]
async fn a_crowd_that_comes_and_goes_adds_up() {
    let gateway = Gateway::start(&told("")).await;
    let mut watcher = Watcher::new(&gateway, "room.a").await;
    let mut staying = Vec::new();
    for n in 0..200 {
        let socket = Socket::subscribed(&gateway, &["room.a"]).await;
        if n % 4 == 0 {
            staying.push(socket);
        } else {
            socket.vanish(n % 2 == 0);
        }
    }
    let names: Vec<&str> = staying.iter().map(|socket| socket.channel.as_str()).collect();
    watcher.until(&names).await;
    check_count(&gateway, "room.a", 51).await;
}

#[tokio::test]
async fn a_group_without_presence_says_nothing() {
    let gateway = Gateway::start(&told("")).await;
    let mut watcher = Socket::subscribed(&gateway, &["quiet", "room.a"]).await;
    let guest = Socket::subscribed(&gateway, &["quiet"]).await;
    let marker = Socket::subscribed(&gateway, &["room.a"]).await;
    let mut told = Vec::new();
    while !told.iter().any(|push: &Value| push["member"] == marker.channel) {
        told.push(watcher.next().await);
    }
    assert!(told.iter().all(|push| push["group"] == "room.a"), "{told:?}");
    drop(guest);
}

/// A member that keeps a list of the others.
pub(crate) struct Watcher {
    pub(crate) socket: Socket,
    group: String,
    others: BTreeSet<String>,
}

impl Watcher {
    pub(crate) async fn new(gateway: &Gateway, group: &str) -> Self {
        let socket = Socket::subscribed(gateway, &[group]).await;
        Self { socket, group: group.to_owned(), others: BTreeSet::new() }
    }

    /// Reads until exactly these others are there.
    pub(crate) async fn until(&mut self, names: &[&str]) {
        let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        while self.others != wanted {
            self.read().await;
        }
    }

    /// Reads until so many others are there.
    async fn until_count(&mut self, count: usize) {
        while self.others.len() != count {
            self.read().await;
        }
    }

    async fn read(&mut self) {
        let push = self.socket.next().await;
        assert_eq!(push["group"], self.group.as_str(), "{push}");
        if push["type"] == "gap" {
            return;
        }
        let member = push["member"].as_str().unwrap_or_else(|| panic!("no member: {push}")).to_owned();
        if member == self.socket.channel {
            return;
        }
        let is_new = match push["type"].as_str() {
            Some("joined") => self.others.insert(member),
            Some("left") => self.others.remove(&member),
            _ => panic!("neither joined nor left: {push}"),
        };
        assert!(is_new, "told twice: {push}");
    }
}

/// `groupcast subscribe` as a process of its own.
struct Program(Child);

impl Program {
    fn subscribed(gateway: &Gateway, group: &str) -> Self {
        let url = format!("http://{}", gateway.address());
        let mut command = groupcast(gateway.home(), &["subscribe", group, "--url", &url]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("the binary can be started"))
    }

    fn kill(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it is a child of ours");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the gateway counts, by each way to ask.
async fn check_count(gateway: &Gateway, group: &str, count: usize) {
    let http = gateway.http();
    let counted = || async {
        let one = http.get(&format!("/v1/groups/{group}")).await.expect(200);
        (one["members"] == count).then_some(())
    };
    eventually("the count is right", counted).await;
    let list = http.get(&format!("/v1/groups/{group}/members?limit=1000")).await.expect(200);
    assert_eq!(list["members"].as_array().map(Vec::len), Some(count), "{list}");
    let sent = http.group_send("other", &json!({"type": "x"})).await;
    assert_eq!(sent["members"], 0, "{sent}");
}

/// Presence in the rooms, with limits.
fn told(limits: &str) -> String {
    format!("{BARE}\n[[group]]\nname = \"room.*\"\npresence = true\n\n[limits]\n{limits}")
}
