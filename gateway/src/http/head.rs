//! The head of a request: what hyper lets through and should not be let through.

use axum::extract::{Request as AxumRequest, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use groupcast_protocol::ErrorCode;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Version};

use super::problem::Problem;
use crate::app::App;
use crate::config::Config;
use crate::origin;

/// Lets only well-formed heads of a bounded size pass.
pub(super) async fn check(State(app): State<App>, mut request: AxumRequest, next: Next) -> Response {
    match admit(&mut request, &app.config) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Makes heads of both versions of HTTP alike and checks them.
///
/// # Errors
/// As [`permit`].
pub(super) fn admit<B>(request: &mut Request<B>, config: &Config) -> Result<(), Problem> {
    name_host(request);
    permit(request, config)
}

/// What every head must be, whatever it asks for and however it came.
///
/// # Errors
/// `headers_too_large`, `bad_request` without exactly one `Host` or with a body in an encoding other than `chunked`,
/// `forbidden` for a foreign page.
pub(crate) fn permit<B>(request: &Request<B>, config: &Config) -> Result<(), Problem> {
    check_size(request, config.limits.header_bytes.0)?;
    check_host(request)?;
    check_encoding(request.headers())?;
    origin::check(request.headers(), &config.server.origins).map_err(Problem::from)
}

/// HTTP/2 says `:authority` where HTTP/1.1 says `Host`.
fn name_host<B>(request: &mut Request<B>) {
    if request.version() != Version::HTTP_2 || request.headers().contains_key(HOST) {
        return;
    }
    let authority = request.uri().authority().and_then(|name| HeaderValue::from_str(name.as_str()).ok());
    if let Some(authority) = authority {
        request.headers_mut().insert(HOST, authority);
    }
}

/// hyper's own bound is higher, so that a client is told by a problem.
fn check_size<B>(request: &Request<B>, bytes_max: usize) -> Result<(), Problem> {
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
/// disagree about whom a request is for. Over HTTP/2 it must be what `:authority` says (RFC 9113, section 8.3.1).
fn check_host<B>(request: &Request<B>) -> Result<(), Problem> {
    let hosts = hosts(request.headers());
    let fine = if request.version() == Version::HTTP_10 { hosts <= 1 } else { hosts == 1 };
    if !fine {
        let detail = format!("the request has {hosts} `Host` headers; send exactly one");
        return Err(Problem::new(ErrorCode::BadRequest, detail));
    }
    let (host, authority) = (request.headers().get(HOST), request.uri().authority());
    if let (Some(host), Some(authority)) = (host, authority)
        && !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
    {
        return Err(Problem::new(ErrorCode::BadRequest, "`Host` and the address of the request differ; send one name"));
    }
    Ok(())
}

/// hyper takes whatever ends with `chunked`, and a reader that decodes what stands before it finds another end of the
/// body (RFC 9112, section 6.1). So there is one encoding, once, and after any other the connection is closed.
fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).into_iter();
    let Some(first) = encodings.next() else { return Ok(()) };
    if encodings.next().is_none() && first.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let detail = "the only `Transfer-Encoding` that is known here is `chunked`, once; send the body as it is";
    Err(Problem::new(ErrorCode::BadRequest, detail).with_header(CONNECTION, HeaderValue::from_static("close")))
}

fn hosts(headers: &HeaderMap) -> usize {
    headers.get_all(HOST).into_iter().count()
}
