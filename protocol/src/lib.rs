//! The protocol of Groupcast: bytes in, decisions out.
//!
//! Pure: no runtime, no clock, no randomness, no environment, no sockets. Whoever calls hands in the time and carries
//! out what comes back.
//!
//! # Contract
//!
//! - **Parse once.** A name, id, message or position that exists has been checked; nobody looks at its characters again.
//! - **Payloads are not rebuilt.** A [`Message`] and a query's parameters are the bytes that the sender wrote, checked for
//!   syntax and depth, and never a slice of the buffer they were read from.
//! - **No input panics**, and `decode(encode(x))` is `x`. Golden files in `protocol/vectors` hold the form on the wire;
//!   SDKs in other languages read the same files.
//! - **A refusal is a [`Refusal`]**: a stable code and a sentence for a person. The codes are one list for HTTP and WebSocket.
//! - **A [`Session`] answers in order**, starts nothing before its turn and queues no more than its [`session::Limits`].
//!
//! # Reading order
//!
//! [`names`], [`id`], [`message`], [`raw_object`], [`envelope`]: the nouns. [`error`], [`close`]: what a client may be
//! told. [`frame`]: what is on the wire. [`session`]: when it may be sent. [`websocket`], [`sse`]: the bytes around a
//! frame. [`format`](mod@format): which of the two. [`asgi`]: what a team's own service is asked, and answers.
//! [`trace`]: which trace something belongs to.

pub mod asgi;
pub mod close;
pub mod envelope;
pub mod error;
pub mod format;
pub mod frame;
pub mod id;
pub mod message;
pub mod names;
pub mod raw_object;
pub mod session;
pub mod sse;
pub mod trace;
pub mod websocket;

#[cfg(test)]
mod tests;

pub use close::CloseCode;
pub use envelope::{Envelope, EnvelopeError, OFFSET_MAX, Position};
pub use error::{ErrorCode, Refusal};
pub use format::Format;
pub use id::{Id, JobId, MessageId};
pub use message::{Message, MessageError};
pub use names::{ChannelName, GroupName, NameError, NodeId, Pattern};
pub use raw_object::{RawObject, RawObjectError};
pub use session::Session;
pub use trace::{Trace, TraceContext};
