//! Pages of `[server] origins` may ask and read from another origin, by `fetch` and `EventSource`: their browsers want to be
//! told so, also before a request that bears a token. Other pages are refused before they come here
//! ([`crate::origin::check`]).

use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::app::App;

/// How long a browser may keep the answer to its question; longer is cut by some.
const MAX_AGE: Duration = Duration::from_secs(600);

/// What such a page may ask for. `/admin/` is for its own page alone.
const PATHS: &str = "/v1/";

/// Says so on `/v1/`. Cookies are for hooks; whoever is listed may show them.
pub(super) fn layer(app: &App) -> CorsLayer {
    let names = |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect::<Vec<_>>();
    let mut asks = vec![ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE];
    asks.extend(names(&["idempotency-key", "last-event-id", "prefer", "traceparent", "tracestate", "x-request-id"]));
    let mut reads = vec![LOCATION, RETRY_AFTER];
    reads.extend(names(&["groupcast-channel", "x-request-id"]));
    let origins = app.config.server.origins.clone();
    let listed = move |origin: &HeaderValue, parts: &Parts| {
        let origin = origin.to_str().unwrap_or_default();
        parts.uri.path().starts_with(PATHS) && origins.iter().any(|listed| listed.eq_ignore_ascii_case(origin))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(listed))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(asks)
        .expose_headers(reads)
        .max_age(MAX_AGE)
}
