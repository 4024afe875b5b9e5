//! What a client may be told when something is refused: a stable code, a sentence, and whether to try again.
//!
//! The log says more; the mapping from our own errors to these codes is made once, in the gateway.

use std::fmt;
use std::time::Duration;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $retriable:literal;)*) => {
        /// A stable, machine-readable reason. The same codes are used over HTTP and WebSocket.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as it is on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether the same request may succeed later, unchanged.
            pub fn is_retriable(self) -> bool {
                match self { $(Self::$name => $retriable,)* }
            }
        }
    };
}

codes! {
    /// The request could not be understood.
    BadRequest = "bad_request", false;
    /// No or no valid credentials.
    Unauthenticated = "unauthenticated", false;
    /// Known, and not allowed.
    Forbidden = "forbidden", false;
    /// No such thing.
    NotFound = "not_found", false;
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", false;
    /// None of the representations that the client accepts can be made.
    NotAcceptable = "not_acceptable", false;
    /// The request's body did not arrive in time.
    RequestTimeout = "request_timeout", true;
    /// The resource speaks WebSocket only.
    UpgradeRequired = "upgrade_required", false;
    /// The same idempotency key came with another body.
    IdempotencyConflict = "idempotency_conflict", false;
    /// The result is not there yet.
    NotReady = "not_ready", true;
    /// The job has already ended.
    Finished = "finished", false;
    /// It was there, and its time is over.
    Expired = "expired", false;
    /// Larger than the limit.
    TooLarge = "too_large", false;
    /// The body is not of a type that is read here.
    UnsupportedMediaType = "unsupported_media_type", false;
    /// Not a JSON object with a string `type`.
    InvalidMessage = "invalid_message", false;
    /// Not a valid name of a group or channel.
    InvalidName = "invalid_name", false;
    /// No query has that name or id.
    UnknownQuery = "unknown_query", false;
    /// A parameter is missing, unknown, of the wrong type or out of range.
    BadParams = "bad_params", false;
    /// Too many requests.
    RateLimited = "rate_limited", true;
    /// The request's header is larger than the limit.
    HeadersTooLarge = "headers_too_large", false;
    /// The channel holds as many messages as it may.
    ChannelFull = "channel_full", true;
    /// A part that is needed cannot be reached.
    Unavailable = "unavailable", true;
    /// More work than can be taken.
    Overloaded = "overloaded", true;
    /// The disk is full.
    StorageFull = "storage_full", true;
    /// A command whose `type` is not part of the protocol.
    UnknownType = "unknown_type", false;
    /// The connection is not subscribed to that group.
    NotSubscribed = "not_subscribed", false;
    /// The connection is subscribed to that group already.
    AlreadySubscribed = "already_subscribed", false;
    /// More of something than one connection may have.
    LimitExceeded = "limit_exceeded", false;
    /// A defect of ours; the log knows more.
    Internal = "internal", true;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// A refusal: what a client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The stable code.
    pub code: ErrorCode,
    /// What, why and what to do, for a person; no secrets, no internals.
    pub message: String,
    /// When the same request may succeed, if that is known; after [`ErrorCode::RateLimited`] it is.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with a sentence of its own.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// Says when the same request may succeed.
    #[must_use]
    pub fn again_in(self, time: Duration) -> Self {
        Self { retry_after: Some(time), ..self }
    }

    /// The same in whole milliseconds, rounded up: who waits so long does not come too early.
    pub fn retry_after_ms(&self) -> Option<u64> {
        let ms = |time: Duration| u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.retry_after.map(ms)
    }

    /// The group carries a live query, and requests may not name it.
    pub fn group_of_live_query(group: &crate::names::GroupName) -> Self {
        let message = format!("group `{group}` carries a live query: subscribe to the query by its name instead");
        Self::new(ErrorCode::Forbidden, message)
    }
}

impl From<crate::names::NameError> for Refusal {
    fn from(error: crate::names::NameError) -> Self {
        Self::new(ErrorCode::InvalidName, error.to_string())
    }
}

impl From<crate::message::MessageError> for Refusal {
    fn from(error: crate::message::MessageError) -> Self {
        let code = match error {
            crate::message::MessageError::TooLarge { .. } => ErrorCode::TooLarge,
            crate::message::MessageError::NotUtf8
            | crate::message::MessageError::NotAnObject
            | crate::message::MessageError::Json(_)
            | crate::message::MessageError::EmptyType
            | crate::message::MessageError::TooDeep => ErrorCode::InvalidMessage,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut seen = std::collections::HashSet::new();
        assert!(ErrorCode::ALL.iter().all(|code| seen.insert(code.as_str())));
    }
}
