//! What executing a command gave, and the frame it becomes.

use crate::envelope::Position;
use crate::error::{ErrorCode, Refusal};
use crate::frame::{Accepted, Command, HistoryPage, Recovery, RequestId, ServerFrame};
use crate::id::JobId;
use crate::names::{ChannelName, GroupName};

/// The answer to a command that was done. What the client said itself (group, job) is not repeated here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To `subscribe`: the subscription is effective from `position` on.
    Subscribed {
        /// The group's position, when it keeps history.
        position: Option<Position>,
        /// What became of `after`, when the command had one.
        recovery: Option<Recovery>,
    },
    /// To `subscribe` to a query: its rows come by this group.
    SubscribedQuery {
        /// The group.
        group: GroupName,
    },
    /// To `unsubscribe`: nothing of the group comes any more.
    Unsubscribed,
    /// To `group_send` and `query`.
    Accepted(Accepted),
    /// To `cancel`.
    Cancelled,
    /// To `members`.
    Members {
        /// Channels in the group, by name.
        members: Vec<ChannelName>,
        /// Where the list goes on, if it does.
        next: Option<String>,
    },
    /// To `history`.
    History(HistoryPage),
    /// To `authenticate`.
    Authenticated {
        /// Who the client is.
        user: Option<String>,
    },
}

/// What the answer needs of the command, which is given away to be executed.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Subscribe(GroupName),
    SubscribeQuery(Box<str>),
    Unsubscribe(GroupName),
    Accept,
    Cancel(JobId),
    Members(GroupName),
    History(GroupName),
    Authenticate,
}

impl Asked {
    pub(super) fn of(command: &Command) -> Self {
        match command {
            Command::Subscribe { group, .. } => Self::Subscribe(group.clone()),
            Command::SubscribeQuery { query, .. } => Self::SubscribeQuery(query.clone()),
            Command::Unsubscribe { group } => Self::Unsubscribe(group.clone()),
            Command::GroupSend { .. } | Command::Query { .. } => Self::Accept,
            Command::Cancel { job } => Self::Cancel(*job),
            Command::Members { group } => Self::Members(group.clone()),
            Command::History { group, .. } => Self::History(group.clone()),
            Command::Authenticate { .. } => Self::Authenticate,
        }
    }

    /// Whether the command starts alone: after everything before is answered, before anything later starts.
    pub(super) fn is_barrier(&self) -> bool {
        match self {
            Self::Subscribe(_) | Self::SubscribeQuery(_) | Self::Unsubscribe(_) | Self::Authenticate => true,
            Self::Accept | Self::Cancel(_) | Self::Members(_) | Self::History(_) => false,
        }
    }
}

impl Answer {
    /// The frame that tells the client.
    ///
    /// # Errors
    /// `internal` when the answer is not one to that command, which is a defect of the driver.
    pub(super) fn into_frame(self, id: Option<RequestId>, asked: Asked) -> Result<ServerFrame, Refusal> {
        let frame = match (asked, self) {
            (Asked::Subscribe(group), Self::Subscribed { position, recovery }) => {
                ServerFrame::Subscribed { id, group, position, recovery }
            }
            (Asked::SubscribeQuery(query), Self::SubscribedQuery { group }) => {
                ServerFrame::SubscribedQuery { id, query, group }
            }
            (Asked::Unsubscribe(group), Self::Unsubscribed) => ServerFrame::Unsubscribed { id, group },
            (Asked::Accept, Self::Accepted(accepted)) => ServerFrame::Accepted { id, accepted },
            (Asked::Cancel(job), Self::Cancelled) => ServerFrame::Cancelled { id, job },
            (Asked::Members(group), Self::Members { members, next }) => {
                ServerFrame::Members { id, group, members, next }
            }
            (Asked::History(group), Self::History(page)) => ServerFrame::History { id, group, page },
            (Asked::Authenticate, Self::Authenticated { user }) => ServerFrame::Authenticated { id, user },
            (_, _) => {
                let message = "the server has mixed up its answers; report this";
                return Err(Refusal::new(ErrorCode::Internal, message));
            }
        };
        Ok(frame)
    }
}
