//! The live page at `/`: its files, and the description of the queries that it makes its forms from.
//!
//! Plain HTML, CSS and modules without a build step, under `default-src 'self'`. Serving them is left to the
//! gateway's HTTP side.

use serde::Serialize;
use std::collections::BTreeMap;

use crate::config::query::{ParamConfig, QueryConfig};

/// What the page's `Content-Security-Policy` may say: everything from the gateway itself, nothing inline.
pub const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// Where it is served.
    pub path: &'static str,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// What is served.
    pub bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! asset {
    ($path:literal, $kind:ident, $file:literal) => {
        Asset { path: $path, content_type: $kind, bytes: include_str!(concat!("../../assets/page/", $file)).as_bytes() }
    };
}

/// All files of the page; the first is the page itself.
pub const ASSETS: &[Asset] = &[
    asset!("/", HTML, "index.html"),
    asset!("/demo/style.css", CSS, "style.css"),
    asset!("/demo/app.js", SCRIPT, "app.js"),
];

/// The body of `GET /demo/queries.json`.
///
/// ```text
/// [{"id":7,"name":"worst_routes","title":"…","params":{"origin":{"type":"text","enum":["JFK","LGA"],"default":"JFK"}}}]
/// ```
pub fn queries_json(queries: &[QueryConfig]) -> String {
    let described: Vec<_> = queries.iter().map(Described::from).collect();
    serde_json::to_string(&described).expect("strings, numbers and maps with string keys always serialise")
}

/// A query without what is nobody's business: its SQL and source.
#[derive(Serialize)]
struct Described<'a> {
    id: u64,
    name: &'a str,
    title: &'a str,
    params: &'a BTreeMap<String, ParamConfig>,
}

impl<'a> From<&'a QueryConfig> for Described<'a> {
    fn from(query: &'a QueryConfig) -> Self {
        Self { id: query.id, name: &query.name, title: &query.title, params: &query.params }
    }
}
