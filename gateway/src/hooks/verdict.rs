//! What the events of an answer mean for what was asked.

use groupcast_protocol::asgi::{Accept, Action};
use groupcast_protocol::{ErrorCode, GroupName, Message, Refusal};

use crate::auth::Caller;

/// A connection that may be.
pub(crate) struct Connected {
    /// Whose it is.
    pub(crate) caller: Caller,
    /// Where it is from the beginning.
    pub(crate) groups: Vec<GroupName>,
}

/// What becomes of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on as it is.
    Allowed,
    /// It may not, for this reason.
    Denied(String),
    /// Neither was said: a message is taken, and nothing becomes of it but what the answer says.
    Nothing,
}

impl Verdict {
    /// What a client is told that may not do what it asked for.
    pub(crate) fn refusal(reason: String) -> Refusal {
        let said = !reason.is_empty();
        let why = if said { reason } else { "the service of this gateway does not allow it".to_owned() };
        Refusal::new(ErrorCode::Forbidden, why)
    }
}

/// What is done beside the verdict, in order and before it has effect.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Send(GroupName, Message),
    Add(GroupName),
    Discard(GroupName),
    Direct(Message),
    Disconnect,
}

/// Messages to groups.
pub(super) type Sends = Vec<(GroupName, Message)>;

/// What an answer means at connect. The outer error is that of an answer that makes no sense, the inner one that of a client
/// that may not be.
pub(super) fn of_connect(actions: Vec<Action>) -> Result<Result<(Accept, Sends), Refusal>, String> {
    let (mut decided, mut sends) = (None, Vec::new());
    for action in actions {
        let decision = match action {
            Action::Accept(accept) => Ok(accept),
            Action::Close { code, reason } => Err(closed(code, reason)),
            Action::GroupSend { group, message } => {
                sends.push((group, message));
                continue;
            }
            Action::Allow | Action::Deny { .. } | Action::GroupAdd(_) | Action::GroupDiscard(_) | Action::Send(_) => {
                return Err("it has an event that is none of a connection that is not there yet".to_owned());
            }
        };
        if decided.replace(decision).is_some() {
            return Err("it has both `websocket.accept` and `websocket.close`, or one of them twice".to_owned());
        }
    }
    let decided = decided.ok_or("it has neither `websocket.accept` nor `websocket.close`")?;
    Ok(decided.map(|accept| (accept, sends)))
}

/// What an answer means for a command. `own`: there is a connection that it can be about.
pub(super) fn of_command(actions: Vec<Action>, own: bool) -> Result<(Verdict, Vec<Step>), String> {
    let (mut verdict, mut steps) = (Verdict::Nothing, Vec::new());
    for action in actions {
        let decision = match action {
            Action::Allow => Verdict::Allowed,
            Action::Deny { reason } => Verdict::Denied(reason),
            Action::Accept(_) => return Err("it has `websocket.accept`, which is for a new connection".to_owned()),
            Action::GroupSend { group, message } => {
                steps.push(Step::Send(group, message));
                continue;
            }
            _ if !own => return Err("it is about a connection, and there is none".to_owned()),
            Action::GroupAdd(group) => {
                steps.push(Step::Add(group));
                continue;
            }
            Action::GroupDiscard(group) => {
                steps.push(Step::Discard(group));
                continue;
            }
            Action::Send(message) => {
                steps.push(Step::Direct(message));
                continue;
            }
            Action::Close { .. } => {
                steps.push(Step::Disconnect);
                continue;
            }
        };
        if std::mem::replace(&mut verdict, decision) != Verdict::Nothing {
            return Err("it has both `allow` and `deny`, or one of them twice".to_owned());
        }
    }
    Ok((verdict, steps))
}

/// What a client is told that may not be: close codes say whether a login would help, or time.
fn closed(code: Option<u16>, reason: String) -> Refusal {
    let code = match code {
        Some(3000) => ErrorCode::Unauthenticated,
        Some(1012 | 1013) => ErrorCode::Unavailable,
        Some(_) | None => ErrorCode::Forbidden,
    };
    let said = !reason.is_empty();
    Refusal::new(code, if said { reason } else { "the service of this gateway does not let this client in".into() })
}
