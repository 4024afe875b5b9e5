//! The protocol of Groupcast: bytes in, decisions out.
//!
//! Pure: no runtime, no clock, no randomness, no environment. Whoever calls hands in the time and carries out
//! what comes back. Reading order: [`names`], [`id`], [`message`], [`error`].

pub mod close;
pub mod envelope;
pub mod error;
pub mod frame;
pub mod id;
pub mod message;
pub mod names;
pub mod raw_object;
pub mod session;
pub mod websocket;

pub use close::CloseCode;
pub use envelope::{Envelope, Position};
pub use error::{ErrorCode, Refusal};
pub use id::{Id, JobId, MessageId};
pub use message::{Message, MessageError};
pub use names::{ChannelName, GroupName, NameError, NodeId, Pattern};
pub use raw_object::{RawObject, RawObjectError};
pub use session::Session;
