//! What a client sends: a command with an `id` of its choice, or a ping.
//!
//! ```text
//! {"type":"subscribe","id":1,"group":"my_group"}
//! {"type":"subscribe","id":1,"group":"my_group","after":{"epoch":"x7","offset":40}}
//! {"type":"subscribe","id":1,"query":"worst_routes","params":{…}}
//! {"type":"unsubscribe","id":2,"group":"my_group"}
//! {"type":"group_send","id":3,"group":"g","message":{…},"idempotency_key":"k"}
//! {"type":"query","id":4,"name":"worst_routes","params":{…}}
//! {"type":"cancel","id":5,"job":"01JD8ZJ4M5E8RAX0V4C9QW2N7K"}
//! {"type":"members","id":6,"group":"g"}
//! {"type":"history","id":7,"group":"g","after":{"epoch":"x7","offset":40},"limit":50}
//! {"type":"authenticate","id":8,"token":"…"}
//! {"type":"ping","id":9}
//! ```

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use super::fields::{FieldError, Fields};
use super::object::Object;
use super::request_id::RequestId;
use crate::envelope::Position;
use crate::error::{ErrorCode, Refusal};
use crate::id::JobId;
use crate::message::Message;
use crate::names::GroupName;
use crate::raw_object::RawObject;

/// The most bytes an idempotency key may have.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// A frame from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFrame {
    /// Repeated in the answer; without it the answer has none.
    pub id: Option<RequestId>,
    /// What is asked.
    pub request: Request,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Work for the server, answered in order.
    Command(Command),
    /// Answered at once with `pong`.
    Ping,
}

/// What a client wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Adds the connection to a group.
    Subscribe {
        /// The group.
        group: GroupName,
        /// Where the client left off, to get what it missed.
        after: Option<Position>,
    },
    /// Subscribes the connection to the rows of a named query: as they are, and then as they change.
    SubscribeQuery {
        /// The name of the query.
        query: Box<str>,
        /// Its parameters; empty when the frame has none.
        params: RawObject,
    },
    /// Removes the connection from a group.
    Unsubscribe {
        /// The group.
        group: GroupName,
    },
    /// Sends a message to a group.
    GroupSend {
        /// The group.
        group: GroupName,
        /// The message.
        message: Message,
        /// A repeat with the same key does nothing again.
        idempotency_key: Option<Box<str>>,
    },
    /// Runs a named query as a job; its events come to this connection alone.
    Query {
        /// The name of the query.
        name: Box<str>,
        /// Its parameters; empty when the frame has none.
        params: RawObject,
    },
    /// Cancels a job.
    Cancel {
        /// The job.
        job: JobId,
    },
    /// Lists the channels in a group.
    Members {
        /// The group.
        group: GroupName,
    },
    /// Reads a group's history, oldest first.
    History {
        /// The group.
        group: GroupName,
        /// Only what came after.
        after: Option<Position>,
        /// At most so many messages, from 1; the server has a limit of its own.
        limit: Option<u64>,
    },
    /// Shows a token, first or anew.
    Authenticate {
        /// The token.
        token: Token,
    },
}

/// A secret of a client. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// Wraps a token.
    pub fn new(token: &str) -> Self {
        Self(token.into())
    }

    /// The token itself; never into a log.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A frame that is not understood, with what the answer needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The frame's `id`, if it could be read.
    pub id: Option<RequestId>,
    /// What the client is told.
    pub refusal: Refusal,
}

const KNOWN: &str = "subscribe, unsubscribe, group_send, query, cancel, members, history, authenticate, ping";

impl ClientFrame {
    /// Reads a text message of a client. The `message` in it may have at most `message_bytes_max` bytes.
    ///
    /// Nothing in the result refers to `text`: payloads are copied, so that a read buffer can be used again.
    ///
    /// # Errors
    /// `bad_request` when the text is no JSON object or a field is missing or wrong, `unknown_type`, `invalid_name`,
    /// `invalid_message`, `too_large`.
    pub fn decode(text: &str, message_bytes_max: usize) -> Result<Self, Refused> {
        let fields = Fields::parse(text).map_err(|error| Refused { id: None, refusal: error.into() })?;
        let id = match fields.raw("id").and_then(|raw| raw.map(RequestId::read).transpose()) {
            Ok(id) => id,
            Err(error) => return Err(Refused { id: None, refusal: error.into() }),
        };
        match decode_request(&fields, message_bytes_max) {
            Ok(request) => Ok(Self { id, request }),
            Err(refusal) => Err(Refused { id, refusal }),
        }
    }

    /// The frame as JSON text.
    pub fn encode(&self) -> Bytes {
        let object = |kind| Object::new(kind, self.id.as_ref());
        let command = match &self.request {
            Request::Ping => return object("ping").finish(),
            Request::Command(command) => command,
        };
        match command {
            Command::Subscribe { group, after } => {
                object("subscribe").field("group", group).optional("after", after.as_ref())
            }
            Command::SubscribeQuery { query, params } if params.is_empty() => object("subscribe").field("query", query),
            Command::SubscribeQuery { query, params } => {
                object("subscribe").field("query", query).json("params", params.raw())
            }
            Command::Unsubscribe { group } => object("unsubscribe").field("group", group),
            Command::GroupSend { group, message, idempotency_key } => object("group_send")
                .field("group", group)
                .json("message", message.raw())
                .optional("idempotency_key", idempotency_key.as_ref()),
            Command::Query { name, params } if params.is_empty() => object("query").field("name", name),
            Command::Query { name, params } => object("query").field("name", name).json("params", params.raw()),
            Command::Cancel { job } => object("cancel").field("job", job),
            Command::Members { group } => object("members").field("group", group),
            Command::History { group, after, limit } => object("history")
                .field("group", group)
                .optional("after", after.as_ref())
                .optional("limit", limit.as_ref()),
            Command::Authenticate { token } => object("authenticate").field("token", &token.reveal()),
        }
        .finish()
    }
}

fn decode_request(fields: &Fields<'_>, message_bytes_max: usize) -> Result<Request, Refusal> {
    let command = match &*fields.string("type")? {
        "subscribe" => subscribe(fields)?,
        "unsubscribe" => Command::Unsubscribe { group: group(fields)? },
        "group_send" => Command::GroupSend {
            group: group(fields)?,
            message: message(fields, message_bytes_max)?,
            idempotency_key: idempotency_key(fields)?,
        },
        "query" => Command::Query { name: fields.string("name")?.into(), params: params(fields)? },
        "cancel" => Command::Cancel { job: job(fields)? },
        "members" => Command::Members { group: group(fields)? },
        "history" => {
            Command::History { group: group(fields)?, after: fields.optional_position("after")?, limit: limit(fields)? }
        }
        "authenticate" => Command::Authenticate { token: Token::new(&fields.string("token")?) },
        "ping" => return Ok(Request::Ping),
        unknown => return Err(unknown_type(unknown)),
    };
    Ok(Request::Command(command))
}

/// To a group, or to a query.
fn subscribe(fields: &Fields<'_>) -> Result<Command, Refusal> {
    let after = fields.optional_position("after")?;
    let Some(query) = fields.optional_string("query")? else {
        return Ok(Command::Subscribe { group: group(fields)?, after });
    };
    let invalid = |why: &str| FieldError::Invalid { field: "query", why: why.to_owned() };
    if fields.raw("group")?.is_some() {
        return Err(invalid("there is a `group`, too; subscribe to one of them at a time").into());
    }
    if after.is_some() {
        return Err(invalid("its rows have no history to go on in; leave `after` out").into());
    }
    Ok(Command::SubscribeQuery { query: query.into(), params: params(fields)? })
}

fn unknown_type(kind: &str) -> Refusal {
    let shown: String = kind.chars().take(40).collect();
    Refusal::new(ErrorCode::UnknownType, format!("the type {shown:?} is not a command; known are {KNOWN}"))
}

fn group(fields: &Fields<'_>) -> Result<GroupName, Refusal> {
    Ok(GroupName::parse(&fields.string("group")?)?)
}

fn message(fields: &Fields<'_>, bytes_max: usize) -> Result<Message, Refusal> {
    let raw = fields.raw("message")?.ok_or(FieldError::Missing { field: "message", needed: "an object" })?;
    if raw.get().len() > bytes_max {
        return Err(crate::message::MessageError::TooLarge { len: raw.get().len(), max: bytes_max }.into());
    }
    Ok(Message::parse(Bytes::copy_from_slice(raw.get().as_bytes()))?)
}

fn idempotency_key(fields: &Fields<'_>) -> Result<Option<Box<str>>, FieldError> {
    let field = "idempotency_key";
    match fields.optional_string(field)? {
        Some(key) if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX => {
            let why = format!("it has {} bytes, 1 to {IDEMPOTENCY_KEY_BYTES_MAX} are allowed", key.len());
            Err(FieldError::Invalid { field, why })
        }
        key => Ok(key.map(Cow::into_owned).map(Into::into)),
    }
}

fn params(fields: &Fields<'_>) -> Result<RawObject, FieldError> {
    let Some(raw) = fields.raw("params")? else { return Ok(RawObject::EMPTY) };
    RawObject::parse(Bytes::copy_from_slice(raw.get().as_bytes()))
        .map_err(|error| FieldError::Invalid { field: "params", why: error.to_string() })
}

fn job(fields: &Fields<'_>) -> Result<JobId, FieldError> {
    let field = "job";
    fields
        .string(field)?
        .parse()
        .map_err(|error: crate::id::IdError| FieldError::Invalid { field, why: error.to_string() })
}

fn limit(fields: &Fields<'_>) -> Result<Option<u64>, FieldError> {
    match fields.optional_whole("limit")? {
        Some(0) => Err(FieldError::Invalid { field: "limit", why: "it is 0; ask for 1 or more".to_owned() }),
        limit => Ok(limit),
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self::new(ErrorCode::BadRequest, error.to_string())
    }
}
