//! What the gateway asks a team's own service, and what that may answer: scopes and events shaped as those of ASGI.
//!
//! ```text
//! {"type":"websocket.connect","channel":"specific.gw1!c12","user":null,"scope":{"type":"websocket","path":"/ws",…}}
//! [{"type":"websocket.accept","user":"alice","groups":["room.7"]}]
//! ```
//!
//! Reading order: [`Scope`] (a request, as far as it is shown), [`Event`] (what is asked), `answer` (what comes back). Whom
//! to ask, how long to wait and what a refusal means are decided by who calls.
//!
//! Source: the ASGI specification 3.0, "HTTP & WebSocket ASGI Message Format" 2.5. Bytes, which JSON has not, are text in
//! which each character is one byte (Latin-1), as they are in headers.

mod answer;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use self::answer::{Accept, Action, AnswerError, RightsSaid, decode};
use crate::message::Message;
use crate::names::{ChannelName, GroupName};

/// The connection that an event is about. It is one of two protocols of ASGI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// A WebSocket: its events are `websocket.connect` and `websocket.disconnect`.
    WebSocket,
    /// A stream of Server-Sent Events: `http.request` and `http.disconnect`.
    Events,
}

impl Door {
    fn protocol(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Events => "http",
        }
    }
}

/// A request for a connection: ASGI's `scope`, with those headers alone that may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scope {
    /// `websocket` or `http`.
    #[serde(rename = "type")]
    kind: &'static str,
    asgi: Versions,
    /// `1.1` or `2`.
    http_version: &'static str,
    /// `ws`, `wss`, `http` or `https`.
    scheme: &'static str,
    /// Only of `http`.
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    root_path: &'static str,
    path: String,
    /// What stands behind the `?`, as it was sent.
    query_string: String,
    /// Names in lower case, in the order of the request.
    headers: Vec<(String, String)>,
    /// Address and port of the other end, which may be a proxy's.
    client: (String, u16),
    /// Name and port by which the gateway was called; `null` without a `Host`.
    server: Option<(String, Option<u16>)>,
    subprotocols: Vec<String>,
}

/// What a scope is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub door: Door,
    /// Whether it came by HTTP/2.
    pub is_http2: bool,
    /// Whether the gateway itself ends TLS.
    pub is_secure: bool,
    /// The path.
    pub path: String,
    /// What stands behind the `?`.
    pub query_string: String,
    /// The headers that may be shown.
    pub headers: Vec<(String, String)>,
    /// The other end.
    pub client: (String, u16),
    /// As whom the gateway was called.
    pub server: Option<(String, Option<u16>)>,
    /// Subprotocols that the client offers, without those that carry a token.
    pub subprotocols: Vec<String>,
}

/// Of which version of ASGI scope and events are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Versions {
    version: &'static str,
    spec_version: &'static str,
}

impl Scope {
    /// A request as ASGI says it.
    pub fn new(request: Request) -> Self {
        let Request { door, is_http2, is_secure, path, query_string, headers, client, server, subprotocols } = request;
        let scheme = match (door, is_secure) {
            (Door::WebSocket, false) => "ws",
            (Door::WebSocket, true) => "wss",
            (Door::Events, false) => "http",
            (Door::Events, true) => "https",
        };
        Self {
            kind: door.protocol(),
            asgi: Versions { version: "3.0", spec_version: "2.5" },
            http_version: if is_http2 { "2" } else { "1.1" },
            scheme,
            method: (door == Door::Events).then_some("GET"),
            root_path: "",
            path,
            query_string,
            headers,
            client,
            server,
            subprotocols,
        }
    }
}

/// What a service is asked, or told.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Somebody wants a connection.
    Connect {
        /// Which kind.
        door: Door,
        /// The channel that it will have.
        channel: &'a ChannelName,
        /// Who it is by its token, if it has shown one.
        user: Option<&'a str>,
        /// How it was asked for.
        scope: &'a Scope,
    },
    /// Somebody wants to subscribe to a group.
    Subscribe {
        /// The channel of his connection.
        channel: &'a ChannelName,
        /// Who he is.
        user: Option<&'a str>,
        /// The group.
        group: &'a GroupName,
    },
    /// Somebody sends a message to a group.
    Receive {
        /// The channel of his connection; none for a request of its own.
        channel: Option<&'a ChannelName>,
        /// Who he is.
        user: Option<&'a str>,
        /// The group.
        group: &'a GroupName,
        /// The message.
        message: &'a Message,
    },
    /// A connection has ended. No answer is read.
    Disconnect {
        /// Which kind it was.
        door: Door,
        /// Its channel.
        channel: &'a ChannelName,
        /// Whose it was.
        user: Option<&'a str>,
        /// The close code of a WebSocket; 1006 if nobody has said any.
        code: Option<u16>,
    },
}

/// An event as it is on the wire; what it has not is left out, but for who is asked about.
#[derive(Serialize)]
struct OnTheWire<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    channel: Option<&'a ChannelName>,
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a GroupName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a serde_json::value::RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a Scope>,
}

impl Event<'_> {
    /// The `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect { door: Door::WebSocket, .. } => "websocket.connect",
            Self::Connect { door: Door::Events, .. } => "http.request",
            Self::Subscribe { .. } => "group.subscribe",
            Self::Receive { .. } => "websocket.receive",
            Self::Disconnect { door: Door::WebSocket, .. } => "websocket.disconnect",
            Self::Disconnect { door: Door::Events, .. } => "http.disconnect",
        }
    }

    /// The event as JSON.
    pub fn encode(&self) -> Vec<u8> {
        let kind = self.kind();
        let nothing =
            OnTheWire { kind, channel: None, user: None, group: None, message: None, code: None, scope: None };
        let said = match *self {
            Self::Connect { channel, user, scope, .. } => {
                OnTheWire { channel: Some(channel), user, scope: Some(scope), ..nothing }
            }
            Self::Subscribe { channel, user, group } => {
                OnTheWire { channel: Some(channel), user, group: Some(group), ..nothing }
            }
            Self::Receive { channel, user, group, message } => {
                let message = serde_json::from_str(message.as_str()).expect("a message has been parsed");
                OnTheWire { channel, user, group: Some(group), message: Some(message), ..nothing }
            }
            Self::Disconnect { channel, user, code, .. } => OnTheWire { channel: Some(channel), user, code, ..nothing },
        };
        serde_json::to_vec(&said).expect("texts, numbers and what was JSON are JSON")
    }
}
