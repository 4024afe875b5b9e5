//! The protocol of Groupcast: bytes in, decisions out.
//!
//! Pure: no runtime, no clock, no randomness, no environment. Whoever calls hands in the time and carries out
//! what comes back. Reading order: [`names`], [`id`], [`message`], [`error`].

pub mod error;
pub mod id;
pub mod message;
pub mod names;

pub use error::{ErrorCode, Refusal};
pub use id::{Id, JobId, MessageId};
pub use message::{Message, MessageError};
pub use names::{ChannelName, GroupName, NameError, NodeId, Pattern};
