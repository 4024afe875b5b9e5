//! The HTTP API as one function: the router, and beside it a straight way for the busiest request.
//!
//! `POST /v1/groups/{group}/send` is what publishers do all day. It is answered by the handler that the router would
//! find, after the same checks; what it saves is the router, its layers and their boxes.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Router};
use bytes::Bytes;
use futures_util::FutureExt;
use groupcast_protocol::{GroupName, Refusal};
use http::header::ORIGIN;
use http::{Method, Request};
use tower::Service;
use tower_http::catch_panic::ResponseForPanic;

use super::body::{JsonBytes, Room};
use super::idempotency::RequestKey;
use super::problem::{Code, Problem};
use super::traced::Traced;
use super::{PanicToProblem, access, groups, head};
use crate::app::App;
use crate::auth::By;
use crate::metrics::RouteMeter;
use crate::server::Peer;
use crate::trace;

/// Every route, for a connection.
#[derive(Clone)]
pub(crate) struct Api {
    app: App,
    router: Router,
    /// Counts the straight way; `None` where nothing is sent.
    sends: Option<RouteMeter>,
}

impl Api {
    /// All routes: ours and those of the embedding program.
    pub(crate) fn new(app: App, more: Router) -> Self {
        let sends = app.metrics.route(Method::POST, groups::SEND, 202);
        Self { router: super::router(app.clone(), more), app, sends: Some(sends) }
    }

    /// What says how a process is that only runs jobs: `/healthz`, `/readyz`, and what is for operators.
    pub(crate) fn of_consumer(app: App) -> Self {
        Self { router: super::consumer_router(app.clone()), app, sends: None }
    }

    /// What `[server] ops_listen` serves.
    pub(crate) fn of_operators(app: App) -> Self {
        Self { router: super::operators_router(app.clone()), app, sends: None }
    }

    /// Answers a request that came from this peer.
    pub(crate) async fn answer<B>(&self, request: Request<B>, peer: &Peer) -> Result<Response, Infallible>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let (traced, scope) = Traced::begin(&self.app, &request);
        let straight = traced.is_recorded() && self.goes_straight(&request);
        let mut response = scope.run(self.respond(request, peer)).await?;
        traced.end(&mut response, straight.then_some(groups::SEND));
        if let Some(Code(code)) = response.extensions().get() {
            self.app.metrics.refused(*code);
        }
        Ok(response)
    }

    fn goes_straight<B>(&self, request: &Request<B>) -> bool {
        self.sends.is_some() && group_of_send(request).is_some()
    }

    async fn respond<B>(&self, mut request: Request<B>, peer: &Peer) -> Result<Response, Infallible>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        if let (Some(sends), Some(group)) = (&self.sends, group_of_send(&request)) {
            let group = GroupName::parse(group);
            let started = Instant::now();
            let answer = AssertUnwindSafe(self.send(group.map_err(Refusal::from), request, peer)).catch_unwind().await;
            let response = match answer {
                Ok(answer) => answer.into_response(),
                Err(panic) => PanicToProblem(self.app.clone()).response_for_panic(panic),
            };
            sends.count(response.status().as_u16(), started.elapsed());
            return Ok(response);
        }
        request.extensions_mut().insert(peer.clone());
        // A router is always ready.
        self.router.clone().call(request.map(Body::new)).await
    }

    async fn send<B>(
        &self,
        group: Result<GroupName, Refusal>,
        mut request: Request<B>,
        peer: &Peer,
    ) -> Result<Response, Problem>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        head::admit(&mut request, &self.app.config)?;
        let (parts, body) = request.into_parts();
        let client = peer.whom(&parts.headers).1;
        let caller = access::charged(&self.app, access::identify(&self.app, &parts.headers), client)?;
        let by = By { caller, channel: None, client, trace: trace::of_request(&parts.headers) };
        by.caller.check_known()?;
        let group = group?;
        let RequestKey(key) = RequestKey::of(&parts.headers)?;
        let body = JsonBytes::of(&parts.headers, body, &Room::of(&self.app)).await?;
        groups::take(&self.app, &by, group, key, body).await.map(IntoResponse::into_response)
    }
}

/// The group of a `group_send` whose path needs no decoding.
fn group_of_send<B>(request: &Request<B>) -> Option<&str> {
    let group = request.uri().path().strip_prefix("/v1/groups/")?.strip_suffix("/send")?;
    let plain = !group.is_empty() && !group.bytes().any(|byte| matches!(byte, b'/' | b'%'));
    // Whoever names an origin is a browser, and is told what its page may read.
    let straight = plain && !request.headers().contains_key(ORIGIN);
    (request.method() == Method::POST && straight).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_plain_send_goes_straight() {
        let group = |method: &str, uri: &str| {
            let request = Request::builder().method(method).uri(uri).body(()).expect("a good request");
            group_of_send(&request).map(str::to_owned)
        };
        assert_eq!(group("POST", "/v1/groups/a.b/send").as_deref(), Some("a.b"));
        assert_eq!(group("POST", "/v1/groups/a/send?x=y").as_deref(), Some("a"));
        for (method, uri) in [
            ("GET", "/v1/groups/a/send"),
            ("POST", "/v1/groups//send"),
            ("POST", "/v1/groups/send"),
            ("POST", "/v1/groups/a/b/send"),
            ("POST", "/v1/groups/a%20b/send"),
            ("POST", "/v1/groups/a/send/"),
        ] {
            assert_eq!(group(method, uri), None, "{method} {uri}");
        }
    }
}
