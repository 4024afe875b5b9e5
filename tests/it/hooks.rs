//! A team's own service decides about clients: who they are, where they may listen, what becomes of what they say.

mod away;
mod connect;
mod messages;
mod subscribe;

use groupcast_tests::backend::Call;
use groupcast_tests::home::BARE;
use groupcast_tests::{Backend, Gateway, Reply, Socket};
use serde_json::{Value, json};

/// Asks about everything.
const ALL: &str = r#"events = ["connect", "subscribe", "message", "disconnect"]
types = ["chat.*"]
cookies = ["sessionid"]
"#;

/// With more time than any answer of a test takes, unless it says otherwise.
fn config(backend: &Backend, more: &str) -> String {
    let timeout = if more.contains("timeout") { "" } else { "timeout = \"15s\"\n" };
    format!(
        "{BARE}\n[hooks]\nurl = \"http://{}/hook\"\nallow_private = true\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n{timeout}{more}",
        backend.address()
    )
}

async fn start(backend: &Backend, more: &str) -> Gateway {
    Gateway::start(&config(backend, more)).await
}

/// Opens a socket about which the service answers this.
async fn dial(gateway: &Gateway, backend: &Backend, path: &str, answer: Value) -> (Result<Socket, Box<Reply>>, Value) {
    let asked = async {
        let call = backend.call().await;
        let body = call.body.clone();
        call.json(&answer).await;
        body
    };
    tokio::join!(Socket::dial(gateway.address(), path, &[], None), asked)
}

/// A socket of a user whom the service names.
async fn socket_of(gateway: &Gateway, backend: &Backend, user: &str) -> Socket {
    let (socket, _) = dial(gateway, backend, "/ws", json!({"type": "websocket.accept", "user": user})).await;
    socket.unwrap_or_else(|reply| panic!("{}", reply.text()))
}

/// Gives a command about which the service answers this: the answer, and what was asked.
async fn command(socket: &mut Socket, backend: &Backend, command: Value, answer: Value) -> (Value, Value) {
    let asked = async {
        let call = backend.call().await;
        let body = call.body.clone();
        call.json(&answer).await;
        body
    };
    tokio::join!(socket.command(command), asked)
}

/// The next request, which has to be about this.
async fn call_about(backend: &Backend, event: &str) -> Call {
    let call = backend.call().await;
    assert_eq!(call.body["type"], event, "{}", call.body);
    call
}

async fn metric(gateway: &Gateway, line: &str) -> bool {
    gateway.http().get("/metrics").await.text().lines().any(|found| found == line)
}
