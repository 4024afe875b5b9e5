//! The head of a request: what hyper lets through and should not be let through.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use groupcast_protocol::ErrorCode;
use http::header::HOST;
use http::{HeaderMap, Version};

use super::problem::Problem;
use crate::app::App;
use crate::origin;

/// Lets only well-formed heads of a bounded size pass.
pub(super) async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    let config = &app.config;
    let checked = check_size(&request, config.limits.header_bytes.0)
        .and_then(|()| check_host(&request))
        .and_then(|()| origin::check(request.headers(), &config.server.origins).map_err(Problem::from));
    match checked {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// hyper's own bound is higher, so that a client is told by a problem.
fn check_size(request: &Request, bytes_max: usize) -> Result<(), Problem> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    // `: ` and the end of the line.
    let lines: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let bytes = target + lines;
    if bytes <= bytes_max {
        return Ok(());
    }
    let detail = format!("the request's head has {bytes} bytes, at most {bytes_max} are allowed; send fewer headers");
    Err(Problem::new(ErrorCode::HeadersTooLarge, detail))
}

/// RFC 9112, section 3.2: a request of HTTP/1.1 has exactly one `Host`. Two are how a proxy and a server come to
/// disagree about whom a request is for.
fn check_host(request: &Request) -> Result<(), Problem> {
    let hosts = hosts(request.headers());
    let fine = if request.version() == Version::HTTP_11 { hosts == 1 } else { hosts <= 1 };
    if fine {
        return Ok(());
    }
    let detail = format!("the request has {hosts} `Host` headers; send exactly one");
    Err(Problem::new(ErrorCode::BadRequest, detail))
}

fn hosts(headers: &HeaderMap) -> usize {
    headers.get_all(HOST).into_iter().count()
}
