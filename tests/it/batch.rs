//! Many messages in one request, and the same request twice.

use groupcast_tests::home::{BARE, JOBS};
use groupcast_tests::{Gateway, Socket};
use serde_json::{Value, json};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_batch_is_answered_item_by_item_in_order() {
    let gateway = Gateway::start(JOBS).await;
    let mut reader = Socket::subscribed(&gateway, &["a", "my_group"]).await;
    let http = gateway.http();
    let batch = json!([
        {"group": "a", "message": {"type": "first"}},
        {"channel": reader.channel, "message": {"type": "second"}},
        {"group": "not a name", "message": {"type": "x"}},
        {"group": "a", "message": {"no": "type"}},
        {"group": "a", "channel": "b", "message": {"type": "x"}},
        {"message": {"type": "x"}},
        {"group": "my_group", "message": {"type": "execute_query", "queryset_id": 99}},
        {"group": "my_group", "message": {"type": "execute_query", "queryset_id": 7}},
        {"group": "a", "message": {"type": "last"}},
    ]);
    let answer = http.post("/v1/send", &batch).await.expect(202);
    let results = answer["results"].as_array().expect("results");
    let statuses: Vec<u64> = results.iter().map(|result| result["status"].as_u64().expect("a status")).collect();
    assert_eq!(statuses, [202, 202, 422, 422, 400, 400, 422, 202, 202], "{answer}");
    let codes: Vec<&Value> = results[2..7].iter().map(|result| &result["code"]).collect();
    assert_eq!(codes, ["invalid_name", "invalid_message", "bad_request", "bad_request", "unknown_query"], "{answer}");
    assert_eq!(results[7]["jobs"].as_array().map(Vec::len), Some(1), "{answer}");
    http.ended(results[7]["jobs"][0]["id"].as_str().expect("an id")).await;

    let pushes = reader.pending().await;
    let kinds: Vec<&str> = pushes.iter().filter_map(|push| push["message"]["type"].as_str()).collect();
    let of_batch: Vec<&&str> = kinds.iter().filter(|kind| !kind.starts_with("job.")).collect();
    assert_eq!(of_batch.len(), 3, "{kinds:?}");
    assert!(kinds.contains(&"second"), "{kinds:?}");
    let at = |name: &str| kinds.iter().position(|kind| *kind == name);
    assert!(at("first") < at("last"), "{kinds:?}");
}

#[tokio::test]
async fn a_batch_has_a_form_and_a_size() {
    let gateway = Gateway::start(BARE).await;
    let http = gateway.http();
    let item = json!({"group": "g", "message": {"type": "x"}});
    for bad in
        [json!({}), json!([]), json!([7]), json!([{"group": 7, "message": {"type": "x"}}]), json!(vec![&item; 1001])]
    {
        http.post("/v1/send", &bad).await.problem(400, "bad_request");
    }
    let answer = http.post("/v1/send", &json!(vec![&item; 1000])).await.expect(202);
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(1000));
}

#[tokio::test]
async fn a_repeat_with_the_same_key_does_nothing_again() {
    let gateway = Gateway::start(JOBS).await;
    let mut reader = Socket::subscribed(&gateway, &["g"]).await;
    let http = gateway.http();
    for (group, body) in [("g", r#"{"type":"x"}"#), ("my_group", r#"{"type":"execute_query","queryset_id":7}"#)] {
        let path = format!("/v1/groups/{group}/send");
        let send = async |key: &str, body: &str| {
            http.request("POST", &path, &[JSON, ("idempotency-key", key)], body.as_bytes().to_vec()).await
        };
        let first = send("once", body).await.expect(202);
        let again = send("once", body).await.expect(202);
        assert_eq!((&first["existing"], &again["existing"]), (&json!(false), &json!(true)), "{again}");
        assert_eq!(first["message_id"], again["message_id"]);
        assert_eq!(first["jobs"][0]["id"], again["jobs"][0]["id"]);
        send("once", r#"{"type":"other"}"#).await.problem(409, "idempotency_conflict");
        send(&"k".repeat(256), body).await.problem(400, "bad_request");
    }
    assert_eq!(reader.pending().await.len(), 1, "sent once");
    assert_eq!(http.get("/v1/jobs").await.expect(200)["jobs"].as_array().map(Vec::len), Some(1), "stored once");
}
