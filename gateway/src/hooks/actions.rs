//! Carries out what an answer says beside its verdict: messages, and what happens to the connection that was asked about.

use groupcast_protocol::{ChannelName, Refusal, Trace};

use super::verdict::{Sends, Step};
use crate::app::App;
use crate::auth::rights::Rights;
use crate::auth::{By, Caller};
use crate::dispatch;

/// What may not be done by an answer is a defect of the service: a right that it cannot give.
pub(super) fn check(step: &Step, caller: &Caller, grants: &Rights) -> Result<(), String> {
    let Step::Add(group) = step else { return Ok(()) };
    let within = match caller {
        Caller::User(user) => user.rights.is_within(group.as_str()),
        Caller::Everybody | Caller::Anonymous(_) | Caller::Service(_) => true,
    };
    if within && grants.allow_subscribe(group.as_str()) {
        return Ok(());
    }
    Err(format!(
        "it adds the connection to group `{group}`, which [hooks] grants.subscribe or the tenant does not allow"
    ))
}

/// Sends messages, as a service would.
///
/// # Errors
/// When one could not be taken; those before it were.
pub(super) async fn send_all(app: &App, sends: Sends, trace: &Trace) -> Result<(), Refusal> {
    for (group, message) in sends {
        app.dispatch.group_send(&By::gateway_in(trace), &group, message, None).await?;
    }
    Ok(())
}

/// Takes steps in order.
///
/// # Errors
/// When one could not be taken; those before it were.
pub(super) async fn carry_out(
    app: &App,
    own: Option<&ChannelName>,
    steps: Vec<Step>,
    trace: &Trace,
) -> Result<(), Refusal> {
    for step in steps {
        let done = match (step, own) {
            (Step::Send(group, message), _) => {
                app.dispatch.group_send(&By::gateway_in(trace), &group, message, None).await?;
                continue;
            }
            // What is about a connection was refused where there is none.
            (_, None) => continue,
            (Step::Add(group), Some(own)) => app.layer.group_add(&group, own).await,
            (Step::Discard(group), Some(own)) => app.layer.group_discard(&group, own).await,
            (Step::Direct(message), Some(own)) => {
                app.dispatch.send(&By::gateway_in(trace), own, message).await?;
                continue;
            }
            (Step::Disconnect, Some(own)) => app.layer.disconnect(own).await.map(drop),
        };
        done.map_err(dispatch::refusal)?;
    }
    Ok(())
}
