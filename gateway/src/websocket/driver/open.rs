//! Subscribing to a group that other nodes share, or that hooks are asked about: the cursor is set when this node follows the
//! group, and its connection may be in it.
//!
//! A subscription is a barrier of the session, so there is at most one on its way.

use std::pin::Pin;
use std::task::{Context, Poll};

use groupcast_channel_layer::Opened;
use groupcast_protocol::session::Ticket;
use groupcast_protocol::{GroupName, Position, Refusal};

use super::Connection;
use crate::dispatch;

/// A subscription that waits for its group.
pub(super) struct Opening {
    ticket: Ticket,
    group: GroupName,
    after: Option<Position>,
    open: Pin<Box<dyn Future<Output = Result<Opened, Refusal>>>>,
}

impl Connection {
    /// Subscribes; later, when the group has to be waited for.
    pub(super) fn begin_subscription(&mut self, ticket: Ticket, group: GroupName, after: Option<Position>) {
        let is_given = self.access.is_given(&group);
        if !is_given && let Err(refusal) = self.access.check_subscribe(&group) {
            return self.session.complete(ticket, Err(refusal));
        }
        let app = self.local.app.clone();
        let by = Some(self.by()).filter(|by| !is_given && app.hooks.asks_subscribe(&by.caller, &group));
        if by.is_none()
            && let Some(_open) = app.layer.open_now(&group)
        {
            return self.subscribe(ticket, &group, after.as_ref());
        }
        let name = group.clone();
        let open = Box::pin(async move {
            if let Some(by) = by {
                app.hooks.subscribe(&app, &by, &name, true).await?;
            }
            app.layer.open(&name).await.map_err(dispatch::refusal)
        });
        self.opening = Some(Box::new(Opening { ticket, group, after, open }));
    }

    /// Takes in a group that has become open, or will not.
    pub(super) fn poll_opening(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(opening) = &mut self.opening else { return false };
        let Poll::Ready(outcome) = opening.open.as_mut().poll(cx) else { return false };
        let Some(opening) = self.opening.take() else { return false };
        let Opening { ticket, group, after, .. } = *opening;
        match outcome {
            // Held open until the cursor is set: from then on the member holds it.
            Ok(_open) if !self.has_closed() => self.subscribe(ticket, &group, after.as_ref()),
            Ok(_open) => {}
            Err(refusal) => self.session.complete(ticket, Err(refusal)),
        }
        true
    }
}
