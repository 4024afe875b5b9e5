//! Queries and jobs over HTTP. The consumers stand still: the tests end jobs themselves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use groupcast_protocol::JobId;
use serde_json::json;

use super::fixture::{Api, call};
use crate::jobs::queue::{ClaimAsk, Claimed, How};
use crate::jobs::results::{Chunk, Content, FileSet, ResultFile, RowSet};
use crate::jobs::{ErrorClass, JobError};

impl Api {
    /// Claims the job that waits.
    async fn claim(&self) -> Claimed {
        let ask =
            ClaimAsk { consumer: "queries".to_owned(), max: 1, lease: Duration::from_secs(60), ..ClaimAsk::default() };
        self.app.jobs.claim(ask).await.expect("a store that works").jobs.pop().expect("a job that waits")
    }

    /// Ends the job that waits, well.
    async fn succeed(&self, content: Content) -> JobId {
        let claimed = self.claim().await;
        let info = content.info(claimed.lease.id);
        self.app.jobs.store_result(&claimed, Arc::new(content)).await.expect("a store that works");
        self.app.jobs.finish(claimed.lease, How::Succeeded(info)).await.expect("a store that works");
        claimed.lease.id
    }

    /// Asks the query; gives the job's id.
    async fn ask(&self) -> String {
        let answer = call("POST", "/v1/queries/one").to(self).await;
        answer.json["id"].as_str().expect("a job").to_owned()
    }
}

fn rows() -> Content {
    let ndjson = Bytes::from_static(b"[1,\"a\"]\n[2,null]\n[3,\"c,d\"]\n");
    let chunks = vec![Chunk { first_row: 0, rows: 3, ndjson }];
    Content::Rows(RowSet { columns: vec!["n".to_owned(), "t".to_owned()], chunks, truncated: false })
}

#[tokio::test]
async fn a_query_is_a_job_that_can_be_waited_for() {
    let api = Api::new().await;
    let stored = call("POST", "/v1/queries/one").body("{}").to(&api).await;
    let id = stored.json["id"].as_str().expect("a job").to_owned();
    assert_eq!((stored.status, stored.header("location")), (202, format!("/v1/jobs/{id}").as_str()));
    assert_eq!((&stored.json["state"], &stored.json["consumer"]), (&json!("ready"), &json!("queries")));
    let path = format!("/v1/jobs/{id}?wait=30");
    let (waited, ended) = tokio::join!(call("GET", &path).to(&api), api.succeed(rows()));
    assert_eq!((waited.status, ended.to_string()), (200, id));
    assert_eq!((&waited.json["state"], &waited.json["result"]["rows"]), (&json!("succeeded"), &json!(3)));
}

#[tokio::test]
async fn a_page_has_as_many_jobs_as_are_asked_for() {
    let api = Api::new().await;
    for _ in 0..1001 {
        api.ask().await;
    }
    let page = call("GET", "/v1/jobs?limit=1000").to(&api).await;
    assert_eq!((page.status, page.json["jobs"].as_array().map(Vec::len)), (200, Some(1000)));
    let next = page.json["next"].as_str().expect("there is another page");
    let rest = call("GET", &format!("/v1/jobs?limit=1000&after={next}")).to(&api).await;
    assert_eq!((rest.json["jobs"].as_array().map(Vec::len), &rest.json["next"]), (Some(1), &json!(null)));
}

#[tokio::test]
async fn a_query_that_ends_within_the_wait_is_answered_at_once() {
    let api = Api::new().await;
    let asked = async { call("POST", "/v1/queries/one").header("prefer", "wait=30").to(&api).await };
    let ended = async {
        // The job is there once the request has been polled.
        tokio::task::yield_now().await;
        api.succeed(rows()).await
    };
    let (answer, id) = tokio::join!(asked, ended);
    assert_eq!((answer.status, answer.header("preference-applied")), (200, "wait=30"));
    assert_eq!(answer.json["result"]["url"], json!(format!("/v1/jobs/{id}/result")));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_202() {
    let api = Api::new().await;
    let answer = call("POST", "/v1/queries/one").header("prefer", "wait=2").to(&api).await;
    assert_eq!((answer.status, &answer.json["state"]), (202, &json!("ready")));
}

#[tokio::test]
async fn rows_come_in_the_form_that_is_asked_for() {
    let api = Api::new().await;
    let id = api.ask().await;
    let path = format!("/v1/jobs/{id}/result");
    call("GET", &path).to(&api).await.is(409, "not_ready");
    api.succeed(rows()).await;
    let json = call("GET", &path).to(&api).await;
    let all =
        json!({"columns": ["n", "t"], "rows": [[1, "a"], [2, null], [3, "c,d"]], "row_count": 3, "truncated": false});
    assert_eq!((json.header("content-type"), &json.json), ("application/json", &all));
    let page = call("GET", &format!("{path}?offset=1&limit=1")).to(&api).await.json;
    assert_eq!(page, json!({"columns": ["n", "t"], "rows": [[2, null]], "row_count": 3, "truncated": false}));
    let csv = call("GET", &path).header("accept", "text/csv").to(&api).await;
    assert_eq!(csv.text, "n,t\r\n1,a\r\n2,\r\n3,\"c,d\"\r\n");
    assert_eq!(csv.header("content-disposition"), format!("attachment; filename=\"{id}.csv\""));
    let lines = call("GET", &format!("{path}?format=ndjson")).header("accept", "text/csv").to(&api).await;
    assert_eq!(lines.text, "{\"n\":1,\"t\":\"a\"}\n{\"n\":2,\"t\":null}\n{\"n\":3,\"t\":\"c,d\"}\n");
    call("GET", &path).header("accept", "text/html").to(&api).await.is(406, "not_acceptable");
    call("GET", &format!("{path}?format=xml")).to(&api).await.is(406, "not_acceptable");
    call("GET", &format!("{path}?limit=0")).to(&api).await.is(400, "bad_request");
}

#[tokio::test]
async fn a_report_comes_as_its_files_and_may_run_no_script_here() {
    let api = Api::new().await;
    let id = api.ask().await;
    let file = |format: &str, media_type: &str, body: &'static str| ResultFile {
        format: format.to_owned(),
        media_type: media_type.to_owned(),
        body: Bytes::from_static(body.as_bytes()),
    };
    let files = vec![file("html", "text/html; charset=utf-8", "<p>"), file("csv", "text/csv; charset=utf-8", "a\r\n")];
    api.succeed(Content::Files(FileSet { files, rows: Some(0), truncated: false })).await;
    let path = format!("/v1/jobs/{id}/result");
    let html = call("GET", &path).to(&api).await;
    assert_eq!((html.text.as_str(), html.header("content-type")), ("<p>", "text/html; charset=utf-8"));
    assert!(html.header("content-security-policy").starts_with("sandbox"));
    assert_eq!(call("GET", &path).header("accept", "text/csv").to(&api).await.text, "a\r\n");
    assert_eq!(call("GET", &format!("{path}?format=csv")).to(&api).await.text, "a\r\n");
    call("GET", &format!("{path}?format=json")).to(&api).await.is(406, "not_acceptable");
}

#[tokio::test]
async fn a_job_is_cancelled_once() {
    let api = Api::new().await;
    let path = format!("/v1/jobs/{}", api.ask().await);
    let cancelled = call("DELETE", &path).to(&api).await;
    assert_eq!((cancelled.status, &cancelled.json["state"]), (202, &json!("cancelled")));
    call("DELETE", &path).to(&api).await.is(409, "finished");
    call("GET", &format!("{path}/result")).to(&api).await.is(404, "not_found");
}

#[tokio::test]
async fn dead_jobs_are_listed_and_redriven() {
    let api = Api::new().await;
    for _ in 0..3 {
        api.ask().await;
    }
    let claimed = api.claim().await;
    let error = JobError { code: "no_such_table".to_owned(), message: "x".to_owned(), class: ErrorClass::Permanent };
    api.app.jobs.finish(claimed.lease, How::Dead(error)).await.expect("a store that works");
    let dead = call("GET", "/v1/jobs?state=dead").to(&api).await.json;
    assert_eq!(dead["jobs"][0]["error"]["code"], json!("no_such_table"));
    let listed = async |reason: &str| {
        let path = format!("/v1/jobs?state=dead&reason={reason}");
        call("GET", &path).to(&api).await.json["jobs"].as_array().map(Vec::len)
    };
    assert_eq!(
        [listed("no_such_table").await, listed("permanent").await, listed("x").await],
        [Some(1), Some(1), Some(0)]
    );
    let reasons = call("GET", "/v1/jobs/dead").to(&api).await.json;
    let at = &dead["jobs"][0]["finished_at"];
    let reason = json!({"consumer": "queries", "code": "no_such_table", "class": "permanent", "jobs": 1,
        "oldest": at, "newest": at});
    assert_eq!(reasons, json!({"reasons": [reason]}));
    let first = call("GET", "/v1/jobs?limit=2").to(&api).await.json;
    let next = first["next"].as_str().expect("a third job");
    let second = call("GET", &format!("/v1/jobs?limit=2&after={next}")).to(&api).await.json;
    assert_eq!((second["jobs"].as_array().map(Vec::len), &second["next"]), (Some(1), &json!(null)));
    let redrive = async |body: &str| call("POST", "/v1/jobs/redrive").body(body).to(&api).await.json;
    assert_eq!(redrive(r#"{"dry_run":true}"#).await, json!({"redriven": 1}));
    assert_eq!(redrive(r#"{"reason":"other"}"#).await, json!({"redriven": 0}));
    assert_eq!(redrive("").await, json!({"redriven": 1}));
    assert_eq!(redrive("{}").await, json!({"redriven": 0}));
}

#[tokio::test]
async fn a_consumer_is_paused_and_resumed() {
    let api = Api::new().await;
    let entry = |paused, ready| {
        json!({"name": "queries", "group": "my_group", "type": "execute_query", "run": "query", "concurrency": 2,
            "rate": null, "paused": paused, "ready": ready, "running": 0, "scheduled": 0, "dead": 0})
    };
    assert_eq!(call("GET", "/v1/consumers").to(&api).await.json, json!({"consumers": [entry(false, 0)]}));
    for _ in 0..2 {
        let paused = call("POST", "/v1/consumers/queries/pause").to(&api).await;
        assert_eq!((paused.status, paused.json), (200, entry(true, 0)));
    }
    let id = api.ask().await;
    assert_eq!(call("GET", "/v1/consumers").to(&api).await.json, json!({"consumers": [entry(true, 1)]}));
    let shown = "groupcast_consumer_paused{consumer=\"queries\"} 1\n";
    assert!(call("GET", "/metrics").to(&api).await.text.contains(shown));
    let resumed = call("POST", "/v1/consumers/queries/resume").to(&api).await;
    assert_eq!((resumed.status, resumed.json), (200, entry(false, 1)));
    assert!(!call("GET", "/metrics").to(&api).await.text.contains(shown));
    assert_eq!(api.claim().await.lease.id.to_string(), id);
    call("POST", "/v1/consumers/reports/pause").to(&api).await.is(404, "not_found");
    call("POST", "/v1/consumers/reports/resume").to(&api).await.is(404, "not_found");
}

#[tokio::test]
async fn work_of_a_group_is_one_job_and_a_repeat_is_the_same_job() {
    let api = Api::new().await;
    let send = || {
        let body = r#"{"type":"execute.query","queryset_id":7}"#;
        call("POST", "/v1/groups/my_group/send").header("idempotency-key", "k").body(body)
    };
    let (first, second) = (send().to(&api).await.json, send().to(&api).await.json);
    assert_eq!(first["jobs"][0]["id"], second["jobs"][0]["id"]);
    assert_eq!(first["jobs"][0]["consumer"], json!("queries"));
    assert_eq!((&first["jobs"][0]["existing"], &second["jobs"][0]["existing"]), (&json!(false), &json!(true)));
    assert_eq!(call("GET", "/v1/jobs").to(&api).await.json["jobs"].as_array().map(Vec::len), Some(1));
}
