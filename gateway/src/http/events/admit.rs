//! Who may have a stream: by his rights, and by what hooks say where they are asked.

use groupcast_channel_layer::Reserved;
use groupcast_protocol::asgi::{Door, Scope};

use super::ask::Groups;
use crate::app::App;
use crate::auth::{By, Caller};
use crate::hooks::{Applicant, Connected};
use crate::http::problem::Problem;

/// Who may have a stream, and of what.
pub(super) struct Admitted {
    pub(super) caller: Caller,
    /// The name of its channel.
    pub(super) reserved: Reserved,
    /// What was asked for, and where hooks put it.
    pub(super) groups: Groups,
}

/// Asks about the stream, if there is a `scope`, and about each group, one after the other: nobody has more than one turn at
/// once.
///
/// # Errors
/// `forbidden` or `unauthenticated` when it may not be, `unavailable` without an answer of hooks.
pub(super) async fn admit(app: &App, by: By, scope: Option<Scope>, mut groups: Groups) -> Result<Admitted, Problem> {
    let By { caller, client, trace, .. } = by;
    let reserved = app.layer.reserve_name();
    let Connected { caller, groups: given } = match scope {
        Some(scope) => {
            let (door, scope, channel) = (Door::Events, &scope, reserved.channel());
            let applicant = Applicant { door, scope, caller: &caller, channel, trace: &trace };
            app.hooks.connect(app, applicant).await?
        }
        None => Connected { caller, groups: Vec::new() },
    };
    caller.check_known()?;
    let asked = || groups.iter().map(|(group, _)| group).filter(|group| !given.contains(group));
    asked().try_for_each(|group| caller.check_subscribe(group))?;
    let by = By { caller: caller.clone(), channel: Some(reserved.channel().clone()), client, trace };
    for group in asked().filter(|group| app.hooks.asks_subscribe(&caller, group)) {
        app.hooks.subscribe(app, &by, group, false).await?;
    }
    let more: Vec<_> = given.into_iter().filter(|given| groups.iter().all(|(group, _)| group != given)).collect();
    groups.extend(more.into_iter().map(|group| (group, None)));
    Ok(Admitted { caller, reserved, groups })
}
