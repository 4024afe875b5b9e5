//! The files of the page, in the binary: HTML, CSS and modules without a build step, some of them those of the demo's page.

use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue};

use crate::app::App;

/// Everything from the gateway itself, nothing inline; and markup is never made from text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// What every answer below `/admin` says, unless its handler knows better.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

struct Asset {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! asset {
    ($path:literal, $kind:ident, $file:literal) => {
        Asset {
            path: concat!("/admin/", $path),
            content_type: $kind,
            bytes: include_str!(concat!("../../../assets/", $file)).as_bytes(),
        }
    };
}

const ASSETS: &[Asset] = &[
    asset!("", HTML, "admin/index.html"),
    asset!("admin.css", CSS, "admin/admin.css"),
    asset!("admin.js", SCRIPT, "admin/admin.js"),
    asset!("api.js", SCRIPT, "admin/api.js"),
    asset!("connections.js", SCRIPT, "admin/connections.js"),
    asset!("consumers.js", SCRIPT, "admin/consumers.js"),
    asset!("groups.js", SCRIPT, "admin/groups.js"),
    asset!("jobs.js", SCRIPT, "admin/jobs.js"),
    asset!("overview.js", SCRIPT, "admin/overview.js"),
    asset!("tail.js", SCRIPT, "admin/tail.js"),
    asset!("theme.js", SCRIPT, "admin/theme.js"),
    asset!("timechart.js", SCRIPT, "admin/timechart.js"),
    asset!("views.js", SCRIPT, "admin/views.js"),
    asset!("base.css", CSS, "page/base.css"),
    asset!("dom.js", SCRIPT, "page/dom.js"),
    asset!("favicon.svg", SVG, "page/favicon.svg"),
    asset!("feed.js", SCRIPT, "page/feed.js"),
    asset!("plot.js", SCRIPT, "page/plot.js"),
];

pub(super) fn routes() -> Router<App> {
    ASSETS.iter().fold(Router::new(), |router, Asset { path, content_type, bytes }| {
        // The binary changes and the address does not.
        let headers = [(CONTENT_TYPE, *content_type), (CACHE_CONTROL, "no-cache")];
        router.route(path, get(move || async move { (headers, *bytes).into_response() }))
    })
}

/// Says what browsers may do with an answer.
pub(super) async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_page_names_is_served() {
        for Asset { path, content_type, bytes } in ASSETS {
            let text = std::str::from_utf8(bytes).expect("UTF-8");
            for name in text.split('"').skip(1).step_by(2) {
                let named = match name.strip_prefix("./") {
                    Some(module) if *content_type == SCRIPT => format!("/admin/{module}"),
                    _ if name.starts_with("/admin/") && !name.starts_with("/admin/api") => name.to_owned(),
                    _ => continue,
                };
                assert!(ASSETS.iter().any(|asset| asset.path == named), "{path} names {named}");
            }
        }
    }

    #[test]
    fn the_page_keeps_its_own_security_policy() {
        for Asset { path, bytes, .. } in ASSETS {
            let text = std::str::from_utf8(bytes).expect("UTF-8");
            for markup in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "@import",
                "<style",
                "style=",
                "onclick=\"",
                "javascript:",
                "<script>",
                "http://",
                "https://",
            ] {
                let found = text.replace("http://www.w3.org/2000/svg", "");
                assert!(!found.contains(markup), "{markup} in {path}");
            }
        }
    }
}
