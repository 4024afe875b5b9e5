//! Names and ids in a path, checked before a handler sees them.

use axum::extract::{FromRequestParts, RawPathParams};
use groupcast_protocol::{ChannelName, ErrorCode, GroupName, JobId, Refusal};
use http::request::Parts;

use super::problem::Problem;

/// `{group}`.
#[derive(Debug)]
pub(super) struct InGroup(pub(super) GroupName);

/// `{channel}`.
#[derive(Debug)]
pub(super) struct OnChannel(pub(super) ChannelName);

/// `{id}`, of a job.
#[derive(Debug)]
pub(super) struct OfJob(pub(super) JobId);

/// `{name}`, of a query; whether there is such a query is not known here.
#[derive(Debug)]
pub(super) struct OfQuery(pub(super) String);

/// `{name}`, of a consumer; whether there is such a consumer is not known here.
#[derive(Debug)]
pub(super) struct OfConsumer(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for InGroup {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = segment(parts, state, "group").await?;
        Ok(Self(GroupName::parse(&text).map_err(Refusal::from)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OnChannel {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = segment(parts, state, "channel").await?;
        Ok(Self(ChannelName::parse(&text).map_err(Refusal::from)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfJob {
    type Rejection = Problem;

    /// What cannot be an id is the id of no job.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = segment(parts, state, "id").await?;
        let absent = |e: groupcast_protocol::id::IdError| Problem::new(ErrorCode::NotFound, e.to_string());
        Ok(Self(text.parse().map_err(absent)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        segment(parts, state, "name").await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfConsumer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        segment(parts, state, "name").await.map(Self)
    }
}

async fn segment<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<String, Problem> {
    let refused = || Problem::new(ErrorCode::BadRequest, "the path is not UTF-8; escape it as UTF-8");
    let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| refused())?;
    let found = params.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned());
    found.ok_or_else(refused)
}
