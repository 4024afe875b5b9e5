//! The live page at `/`: its files, and the description of the queries that it makes its forms from.
//!
//! Plain HTML, CSS and modules without a build step, under `default-src 'self'`. Serving them is left to the
//! gateway's HTTP side.

use std::collections::BTreeMap;

use serde::Serialize;

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
const SVG: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! asset {
    ($path:literal, $kind:ident, $file:literal) => {
        Asset { path: $path, content_type: $kind, bytes: include_str!(concat!("../../assets/page/", $file)).as_bytes() }
    };
}

/// All files of the page; the first is the page itself.
pub const ASSETS: &[Asset] = &[
    asset!("/", HTML, "index.html"),
    asset!("/demo/base.css", CSS, "base.css"),
    asset!("/demo/style.css", CSS, "style.css"),
    asset!("/demo/favicon.svg", SVG, "favicon.svg"),
    // Asked for by every browser, also for a report or a result opened in a tab.
    asset!("/favicon.ico", SVG, "favicon.svg"),
    asset!("/demo/app.js", SCRIPT, "app.js"),
    asset!("/demo/ask.js", SCRIPT, "ask.js"),
    asset!("/demo/chart.js", SCRIPT, "chart.js"),
    asset!("/demo/compose.js", SCRIPT, "compose.js"),
    asset!("/demo/connection.js", SCRIPT, "connection.js"),
    asset!("/demo/dom.js", SCRIPT, "dom.js"),
    asset!("/demo/feed.js", SCRIPT, "feed.js"),
    asset!("/demo/jobs.js", SCRIPT, "jobs.js"),
    asset!("/demo/live.js", SCRIPT, "live.js"),
    asset!("/demo/plot.js", SCRIPT, "plot.js"),
    asset!("/demo/result.js", SCRIPT, "result.js"),
    asset!("/demo/snippets.js", SCRIPT, "snippets.js"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_page_names_is_served() {
        for Asset { path, content_type, bytes } in ASSETS {
            let text = std::str::from_utf8(bytes).expect("UTF-8");
            let quoted = text.split('"').skip(1).step_by(2);
            let named = quoted.filter_map(|name| match name.strip_prefix("./") {
                Some(module) if *content_type == SCRIPT => Some(format!("/demo/{module}")),
                _ => name.starts_with("/demo/").then(|| name.to_owned()),
            });
            for name in named.filter(|name| name != "/demo/queries.json") {
                assert!(ASSETS.iter().any(|asset| asset.path == name), "{path} names {name}");
            }
        }
    }

    #[test]
    fn the_page_keeps_its_own_security_policy() {
        let page = std::str::from_utf8(ASSETS[0].bytes).expect("UTF-8");
        for inline in ["<style", "style=", "onclick=", "onload=", "javascript:", "<script>"] {
            assert!(!page.contains(inline), "{inline} in index.html");
        }
        for Asset { path, bytes, .. } in ASSETS {
            let text = std::str::from_utf8(bytes).expect("UTF-8");
            for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "@import"] {
                assert!(!text.contains(markup), "{markup} in {path}");
            }
        }
    }

    #[test]
    fn queries_are_described_without_their_sql() {
        #[derive(serde::Deserialize)]
        struct Parts {
            query: Vec<QueryConfig>,
        }
        let parts: Parts = toml::from_str(
            r#"[[query]]
            id = 7
            name = "worst_routes"
            title = "Where?"
            source = "demo"
            sql = "SELECT :origin, :n"
            params.origin = { type = "text", enum = ["JFK", "LGA"], default = "JFK" }
            params.n = { type = "integer", min = 1, max = 9 }"#,
        )
        .expect("valid");
        let described: serde_json::Value = serde_json::from_str(&queries_json(&parts.query)).expect("JSON");
        assert_eq!(
            described,
            serde_json::json!([{ "id": 7, "name": "worst_routes", "title": "Where?", "params": {
                "origin": { "type": "text", "enum": ["JFK", "LGA"], "default": "JFK" },
                "n": { "type": "integer", "min": 1.0, "max": 9.0 },
            }}])
        );
    }
}
