//! Doors to what reads query strings, headers and bodies, for `fuzz/`.

use std::time::Duration;

use groupcast_protocol::Message;
use http::{HeaderMap, Uri};

use super::batch::{self, Entry, Target};
use super::idempotency::RequestKey;
use super::params::Params;
use super::problem::Problem;
use super::{accept, body, prefer};

/// What was read of a query string with `limit`, `after` and `wait`, and of headers.
#[derive(Debug)]
pub struct QueryString {
    /// `limit`.
    pub limit: usize,
    /// `after`, as it is.
    pub after: Option<String>,
    /// `wait`, at most a minute.
    pub wait: Duration,
    /// `Prefer: wait=…`, at most a minute.
    pub preferred: Option<Duration>,
    /// `Accept`: the index of what is liked best of JSON, NDJSON and CSV.
    pub best: Option<usize>,
    /// `Idempotency-Key`.
    pub has_key: bool,
}

/// A message of a batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Batched {
    /// The group, or the channel.
    pub target: String,
    /// Whether it is a group.
    pub is_group: bool,
    /// The message.
    pub message: Message,
    /// Whether it has a key.
    pub has_key: bool,
}

const MINUTE: Duration = Duration::from_secs(60);
const OFFERS: &[&str] = &["application/json", "application/x-ndjson", "text/csv; charset=utf-8"];

pub(crate) fn query_string(uri: &Uri, headers: &HeaderMap) -> Result<QueryString, u16> {
    let read = || -> Result<QueryString, Problem> {
        let params = Params::parse(uri, &["limit", "after", "wait"])?;
        Ok(QueryString {
            limit: params.limit()?,
            after: params.text("after").map(str::to_owned),
            wait: prefer::asked_wait(&params, MINUTE)?,
            preferred: prefer::preferred_wait(headers, MINUTE),
            best: accept::best(headers, OFFERS),
            has_key: RequestKey::of(headers)?.0.is_some(),
        })
    };
    read().map_err(|problem| problem.status().as_u16())
}

pub(crate) fn batch(bytes: &[u8]) -> Result<Vec<Option<Batched>>, u16> {
    let items: Vec<Entry<'_>> = body::parse(bytes).map_err(|problem| problem.status().as_u16())?;
    let read = |Entry(item): Entry<'_>| {
        let sending = batch::check(item).ok()?;
        let (target, is_group) = match &sending.target {
            Target::Group(group) => (group.to_string(), true),
            Target::Channel(channel) => (channel.to_string(), false),
        };
        Some(Batched { target, is_group, message: sending.message, has_key: sending.key.is_some() })
    };
    Ok(items.into_iter().map(read).collect())
}
