//! What is described is what is served.

use serde_json::{Value, json};

use super::fixture::{Api, call};

const METHODS: &[&str] = &["GET", "PUT", "POST", "DELETE", "PATCH"];

/// Paths as the contract has them, with `{}` for names and ids.
const CONTRACT: &[&str] = &[
    "DELETE /v1/connections/{}",
    "DELETE /v1/groups/{}/members/{}",
    "DELETE /v1/jobs/{}",
    "GET /docs",
    "GET /healthz",
    "GET /metrics",
    "GET /openapi.json",
    "GET /readyz",
    "GET /v1/connections",
    "GET /v1/connections/{}",
    "GET /v1/consumers",
    "GET /v1/events",
    "GET /v1/groups",
    "GET /v1/groups/{}",
    "GET /v1/groups/{}/history",
    "GET /v1/groups/{}/members",
    "GET /v1/jobs",
    "GET /v1/jobs/dead",
    "GET /v1/jobs/{}",
    "GET /v1/jobs/{}/result",
    "GET /v1/schedules",
    "POST /v1/channels/{}/send",
    "POST /v1/consumers/{}/pause",
    "POST /v1/consumers/{}/resume",
    "POST /v1/groups/{}/send",
    "POST /v1/invalidate",
    "POST /v1/jobs/redrive",
    "POST /v1/queries/{}",
    "POST /v1/send",
    "PUT /v1/groups/{}/members/{}",
];

async fn description(api: &Api) -> Value {
    let description = call("GET", "/openapi.json").to(api).await.json;
    assert_eq!(description["openapi"], "3.1.0");
    description
}

fn paths(description: &Value) -> Vec<(String, Vec<String>)> {
    let paths = description["paths"].as_object().expect("paths");
    let methods =
        |path: &Value| path.as_object().into_iter().flat_map(|m| m.keys()).map(|m| m.to_uppercase()).collect();
    paths.iter().map(|(path, value)| (path.clone(), methods(value))).collect()
}

/// A path with something in place of each `{…}`.
fn filled(path: &str, with: &str) -> String {
    let segments = path.split('/').map(|segment| if segment.starts_with('{') { with } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_described_method_is_served_and_no_other() {
    let api = Api::new().await;
    for (path, described) in paths(&description(&api).await) {
        for method in METHODS {
            let answer = call(method, &filled(&path, "x")).to(&api).await;
            let is_described = described.iter().any(|known| known == method);
            assert_eq!(answer.status != 405, is_described, "{method} {path}: {}", answer.text);
            assert!(!answer.text.contains("there is no route"), "{method} {path}");
            if !is_described {
                let allow: Vec<&str> = answer.header("allow").split(',').filter(|m| *m != "HEAD").collect();
                let mut described: Vec<&str> = described.iter().map(String::as_str).collect();
                described.sort_unstable_by_key(|m| allow.iter().position(|a| a == m));
                assert_eq!(allow, described, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn the_contracts_routes_are_described_and_no_other() {
    let api = Api::new().await;
    let mut found: Vec<String> = paths(&description(&api).await)
        .iter()
        .flat_map(|(path, methods)| methods.iter().map(|method| format!("{method} {}", filled(path, "{}"))))
        .collect();
    found.sort_unstable();
    assert_eq!(found, CONTRACT);
}

#[tokio::test]
async fn every_operation_says_what_comes_back_and_every_reference_leads_somewhere() {
    let description = description(&Api::new().await).await;
    for (path, value) in description["paths"].as_object().expect("paths") {
        for (method, operation) in value.as_object().expect("operations") {
            assert!(operation["summary"].is_string() && operation["operationId"].is_string(), "{method} {path}");
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let is_problem = !response["content"]["application/problem+json"].is_null();
                assert_eq!(status.starts_with(['4', '5']), is_problem, "{method} {path} {status}");
            }
        }
    }
    let text = description.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(description.pointer(reference).is_some(), "{reference} leads nowhere");
    }
}

#[tokio::test]
async fn every_operation_that_takes_a_credential_says_which() {
    let description = description(&Api::new().await).await;
    let scheme = &description["components"]["securitySchemes"]["bearer"];
    assert_eq!((&scheme["type"], &scheme["scheme"]), (&json!("http"), &json!("bearer")));
    for (path, value) in description["paths"].as_object().expect("paths") {
        for (method, operation) in value.as_object().expect("operations") {
            let open = ["/healthz", "/readyz", "/openapi.json", "/docs"].contains(&path.as_str());
            let expected = if open { Value::Null } else { json!([{"bearer": []}, {}]) };
            assert_eq!(operation["security"], expected, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_page_shows_every_route_and_loads_nothing() {
    let api = Api::new().await;
    let page = call("GET", "/docs").to(&api).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    for (path, _) in paths(&description(&api).await) {
        assert!(page.text.contains(&path), "{path} is not on the page");
    }
    for loads in ["http://", "https://", "src=", "<script", "<link", "@import", "url("] {
        assert!(!page.text.contains(loads), "{loads} is on the page");
    }
}
