//! What a request is called in its answer, in the log and in a trace.

use std::borrow::Cow;

use axum::extract::MatchedPath;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Request};

use super::access::bearer;
use crate::app::App;
use crate::metrics::known_method;
use crate::telemetry::{Kind, RequestId, Scope, Span, X_REQUEST_ID};
use crate::trace;

/// Where traces may begin; what looks after the gateway would fill them.
const API: &str = "/v1/";
/// Characters of a path that a span keeps.
const PATH_MAX: usize = 200;

/// A request that is being answered.
pub(super) struct Traced {
    id: HeaderValue,
    /// There where the request is recorded.
    span: Option<Box<Recorded>>,
}

struct Recorded {
    span: Span,
    method: &'static str,
}

/// The pattern of the route that answered, as an extension of its answer.
#[derive(Clone)]
pub(super) struct Route(pub(super) MatchedPath);

impl Traced {
    /// Names a request, and says in which scope it is to be answered.
    pub(super) fn begin<B>(app: &App, request: &Request<B>) -> (Self, Scope) {
        let id = RequestId::of(request.headers());
        let value = id.to_value();
        let (scope, span) = begin(app, request, Scope::request(id));
        (Self { id: value, span }, scope)
    }

    /// Whether anybody wants to know more than the id.
    pub(super) fn is_recorded(&self) -> bool {
        self.span.is_some()
    }

    /// Tells the client and the trace what came of it. `route` is its pattern where no router was asked.
    pub(super) fn end(self, response: &mut Response, route: Option<&'static str>) {
        response.headers_mut().insert(X_REQUEST_ID, self.id);
        let Some(recorded) = self.span else { return };
        let Recorded { mut span, method } = *recorded;
        let status = response.status();
        let found = response.extensions_mut().remove::<Route>();
        let route = route.map(Cow::Borrowed).or_else(|| Some(Cow::Owned(found?.0.as_str().to_owned())));
        match route {
            Some(route) => {
                span.rename(format!("{method} {route}"));
                span.set("http.route", route.into_owned());
            }
            None => span.rename(method),
        }
        span.set("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            span.fail(status.as_str().to_owned(), "");
        }
    }
}

/// With neither a trace that came nor any of ours, this is the look-up of one header.
fn begin<B>(app: &App, request: &Request<B>, scope: Scope) -> (Scope, Option<Box<Recorded>>) {
    let (tracer, headers) = (app.dispatch.tracer(), request.headers());
    let came = trace::of_headers(headers);
    let begins = came.is_some() || (tracer.is_on() && request.uri().path().starts_with(API));
    if !begins {
        return (scope, None);
    }
    let (trace, span) = tracer.arrive(came, || is_trusted(app, headers), Kind::Server, "HTTP");
    let recorded = span.map(|mut span| {
        let method = known_method(request.method());
        span.set("http.request.method", method);
        span.set("url.path", request.uri().path().chars().take(PATH_MAX).collect::<String>());
        Box::new(Recorded { span, method })
    });
    (scope.within(tracer, trace), recorded)
}

/// Whether somebody's word is enough to have his request recorded: a service's, and without `[auth]`, where only this machine is
/// listened to, everybody's.
fn is_trusted(app: &App, headers: &HeaderMap) -> bool {
    !app.auth.is_on() || bearer(headers).is_ok_and(|key| key.is_some_and(|key| app.auth.is_key(key)))
}
