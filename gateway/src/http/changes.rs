//! The log's line about what operators change: the same for `/v1`, which the command line uses, and for the admin page.

use http::{Method, StatusCode};

use crate::auth::Caller;

/// The one change that others than operators may make, too: of jobs of their own, which is no line of the log.
const OF_JOBS: &str = "/v1/jobs/{id}";

/// What an operator is about to change.
#[derive(Debug)]
pub(super) struct Change {
    operator: String,
    method: Method,
    path: String,
}

impl Change {
    /// The change that a request asks for; `None` for one that only looks.
    pub(super) fn of(operator: &str, method: &Method, path: &str) -> Option<Self> {
        let asked = || Self { operator: operator.to_owned(), method: method.clone(), path: path.to_owned() };
        (!method.is_safe()).then(asked)
    }

    /// The same below `/v1`, for a route that is for operators, or the cancelling of a job by one. What clients do all day
    /// (send, ask, join) is none.
    pub(super) fn beside(caller: &Caller, by_name: bool, route: &str, method: &Method, path: &str) -> Option<Self> {
        if method.is_safe() || by_name && (route != OF_JOBS || caller.check_operate().is_err()) {
            return None;
        }
        Self::of(name(caller), method, path)
    }

    /// Writes the line, with what came of it.
    pub(super) fn note(self, status: StatusCode) {
        let Self { operator, method, path } = self;
        tracing::info!(operator, %method, path, status = status.as_u16(), "an operator has changed something");
    }
}

/// What somebody who may do everything is called in the log.
pub(super) fn name(caller: &Caller) -> &str {
    match caller {
        Caller::Everybody => "everybody",
        Caller::Anonymous(_) => "nobody",
        Caller::Service(service) => &service.name,
        Caller::User(user) => &user.name,
    }
}
