//! The frames of `groupcast.v1`: JSON objects with a `type`, one in each text message.
//!
//! What a client sends and what a server sends are two enums with `decode` and `encode` side by side, because both
//! ends are ours. Payloads (`message`, `params`) pass through as the bytes they came in. When a frame may be sent is
//! not decided here but in [`session`](crate::session).
//!
//! Fields that are not known are ignored, so that an older reader understands a newer writer; known fields of the
//! wrong type are refused by name. An optional field that is `null` is as if it were absent.

mod accepted;
mod client;
mod fields;
mod object;
mod request_id;
mod server;

pub use accepted::{Accepted, AcceptedJob, Durability};
pub use client::{ClientFrame, Command, IDEMPOTENCY_KEY_BYTES_MAX, Refused, Request, Token};
pub use fields::FieldError;
pub use request_id::{REQUEST_ID_BYTES_MAX, RequestId};
pub use server::{
    FrameError, GapReason, HistoryEntry, HistoryPage, PROTOCOL, Recovery, ServerFrame, Unrecovered,
    encode_channel_message, encode_group_message, frame_group_message,
};
