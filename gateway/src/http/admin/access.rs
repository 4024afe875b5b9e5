//! Who is let in below `/admin/api/`: whoever signed in, by the cookie, or shows a key for everything.

use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use groupcast_protocol::{ErrorCode, sse};
use http::header::{CONTENT_TYPE, COOKIE};
use http::{HeaderMap, Method};

use super::Admin;
use super::sessions::{Digested, Session};
use crate::app::App;
use crate::auth::{By, Caller};
use crate::http::access::bearer;
use crate::http::changes::{self, Change};
use crate::http::problem::Problem;
use crate::limits::Client;
use crate::server::Peer;
use crate::trace;
use crate::{clock, origin};

/// The cookie's name.
pub(super) const COOKIE_NAME: &str = "groupcast_admin";
/// How often an open stream looks whether its session lives.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Somebody who is let in.
struct Admitted {
    caller: Caller,
    /// What he is called in the log.
    name: String,
    /// By which session; `None` without one.
    session: Option<Digested>,
}

/// Lets pass who may ask, tells the handler who it is, and notes who has changed something.
pub(super) async fn admit(
    State(app): State<App>,
    Extension(admin): Extension<Admin>,
    mut request: Request,
    next: Next,
) -> Response {
    let client = request.extensions().get::<Peer>().map_or(Client::NOWHERE, |peer| peer.whom(request.headers()).1);
    let admitted = match admitted(&app, &admin, request.headers(), request.method()) {
        Ok(admitted) => admitted,
        // Guesses count for their address. Operators are not held back by what clients may do.
        Err(problem) => return refused(&app, client, problem).into_response(),
    };
    let change = Change::of(&admitted.name, request.method(), request.uri().path());
    let trace = trace::of_request(request.headers());
    request.extensions_mut().insert(By { caller: admitted.caller, channel: None, client, trace });
    let response = next.run(request).await;
    if let Some(change) = change {
        change.note(response.status());
    }
    match admitted.session.filter(|_| is_stream(&response)) {
        Some(session) => ended_with(response, admin, session),
        None => response,
    }
}

fn refused(app: &App, client: Client, problem: Problem) -> Problem {
    match app.limits.charge_unknown(client) {
        Ok(()) => problem,
        Err(limited) => limited.into(),
    }
}

/// Refuses what another page has a browser send, before anybody asks who sends it.
pub(super) async fn own_page_only(request: Request, next: Next) -> Response {
    match origin::check_own(request.headers(), false) {
        Ok(()) => next.run(request).await,
        Err(refusal) => Problem::from(refusal).into_response(),
    }
}

fn admitted(app: &App, admin: &Admin, headers: &HeaderMap, method: &Method) -> Result<Admitted, Problem> {
    if admin.is_open {
        let caller = Caller::Everybody;
        return Ok(Admitted { name: changes::name(&caller).to_owned(), caller, session: None });
    }
    if !app.auth.is_on() {
        let why = "the admin page can be reached from other machines here, and there is no key; set [auth]";
        return Err(Problem::new(ErrorCode::Forbidden, why));
    }
    if let Some(credential) = bearer(headers)? {
        let caller = app.auth.identify(Some(credential), clock::now_ms())?;
        caller.check_operate()?;
        let name = changes::name(&caller).to_owned();
        return Ok(Admitted { caller, name, session: None });
    }
    let Some(Session { operator, digest, .. }) = session(app, admin, headers) else {
        return Err(Problem::new(ErrorCode::Unauthenticated, "nobody is signed in; sign in at /admin/, or show a key"));
    };
    origin::check_own(headers, !is_read(method))?;
    let name = operator.name.clone();
    Ok(Admitted { caller: Caller::Service(operator), name, session: Some(digest) })
}

/// The session of the cookie, if it lives and its key is still one for everything.
pub(super) fn session(app: &App, admin: &Admin, headers: &HeaderMap) -> Option<Session> {
    let session = admin.sessions.find(token(headers)?, Instant::now())?;
    let stands = app.auth.check_still(&Caller::Service(session.operator.clone()));
    stands.is_ok().then_some(session)
}

/// What the cookie says (RFC 6265, section 5.4: pairs that are separated by `; `).
fn token(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, token)| token)
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn is_stream(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == sse::MEDIA_TYPE)
}

/// Ends a stream soon after its session. That its key is gone, it learns as every stream does.
fn ended_with(response: Response, admin: Admin, session: Digested) -> Response {
    let over = async move {
        while admin.sessions.lives(&session, Instant::now()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(over))))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_cookie_is_found_among_others() {
        let found = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, HeaderValue::from_static(line));
            }
            token(&headers).map(str::to_owned)
        };
        assert_eq!(found(&["groupcast_admin=abc"]).as_deref(), Some("abc"));
        assert_eq!(found(&["a=b; groupcast_admin=abc; c=d"]).as_deref(), Some("abc"));
        assert_eq!(found(&["a=b", "groupcast_admin=abc"]).as_deref(), Some("abc"));
        for none in [&[][..], &["a=b"], &["xgroupcast_admin=abc"], &["groupcast_admin"], &["GROUPCAST_ADMIN=abc"]] {
            assert_eq!(found(none), None, "{none:?}");
        }
    }
}
