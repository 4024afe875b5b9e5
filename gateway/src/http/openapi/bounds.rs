//! What parameters and bodies may be, and what any route may answer: one rule for each, wherever it stands.

use groupcast_protocol::frame::IDEMPOTENCY_KEY_BYTES_MAX;
use groupcast_protocol::names::NAME_LEN_MAX;
use serde_json::{Map, Value, json};

use crate::http::access::OPEN;
use crate::http::batch::ITEMS_MAX;
use crate::http::openapi::CREDENTIAL;
use crate::http::params::LIMIT_MAX;

/// Completes the parameters of an operation.
pub(super) fn tell(path: &str, operation: &mut Value) {
    let mut keyed = false;
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
        keyed |= name == "Idempotency-Key";
        let bounds = bounds(path, name);
        let Some(schema) = parameter.get_mut("schema").and_then(Value::as_object_mut) else { continue };
        schema.extend(bounds);
    }
    tell_body(path, operation);
    if !OPEN.contains(&path) {
        // Or none: a gateway without `[auth]` asks for none, and with it `anonymous` may do something.
        operation["security"] = json!([{CREDENTIAL: []}, {}]);
    }
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    let mut add = |status: &str, description: &str| {
        responses.entry(status).or_insert_with(|| json!({"description": description}));
    };
    // A key that is none is refused before anything else is looked at.
    if keyed {
        add("400", "`bad_request`: the idempotency key is empty or too long");
    }
    if !OPEN.contains(&path) {
        add("401", "`unauthenticated`: with `[auth]`, a credential that is missing or not valid");
        add("403", "`forbidden`: the page's origin; with `[auth]`, what the credential does not grant");
        add("429", "`rate_limited`, with `Retry-After`");
    }
}

/// What the types of the handlers do not say of a body.
fn tell_body(path: &str, operation: &mut Value) {
    let Some(body) = operation.get_mut("requestBody") else { return };
    let schema = match path {
        "/v1/groups/{group}/send" | "/v1/channels/{channel}/send" => json!({
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"type": "string", "minLength": 1}},
        }),
        "/v1/send" => json!({"minItems": 1, "maxItems": ITEMS_MAX}),
        "/v1/jobs/redrive" => {
            body["required"] = json!(false);
            return;
        }
        _ => return,
    };
    let told = body.pointer_mut("/content/application~1json/schema").and_then(Value::as_object_mut);
    if let (Some(told), Value::Object(schema)) = (told, schema) {
        told.extend(schema);
    }
}

fn bounds(path: &str, name: &str) -> Map<String, Value> {
    let bounds = match name {
        "group" if path.contains("{group}") => json!({"pattern": "^[A-Za-z0-9._-]+$", "maxLength": NAME_LEN_MAX}),
        "channel" => json!({"pattern": "^[A-Za-z0-9._-]+(![A-Za-z0-9._-]*)?$", "maxLength": NAME_LEN_MAX}),
        // A result has as many rows as its query may give.
        "limit" if path.ends_with("/result") => json!({"minimum": 1}),
        "limit" => json!({"minimum": 1, "maximum": LIMIT_MAX}),
        "Idempotency-Key" => json!({"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_BYTES_MAX}),
        "Prefer" | "Last-Event-ID" => json!({"type": "string"}),
        _ => json!({}),
    };
    if let Value::Object(bounds) = bounds { bounds } else { Map::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_bounds_and_its_refusal() {
        let schema = json!({"type": ["string", "null"]});
        let mut operation = json!({
            "parameters": [{"name": "group", "schema": {"type": "string"}}, {"name": "Idempotency-Key", "schema": schema}],
            "responses": {"202": {}},
        });
        tell("/v1/groups/{group}/send", &mut operation);
        let key = &operation["parameters"][1]["schema"];
        assert_eq!((&key["type"], &key["maxLength"]), (&json!("string"), &json!(255)));
        assert_eq!(operation["parameters"][0]["schema"]["maxLength"], 99);
        assert!(operation["responses"]["400"]["description"].is_string());
    }

    #[test]
    fn a_message_has_a_type_and_whoever_may_not_ask_is_told() {
        let content = json!({"application/json": {"schema": {"type": "object"}}});
        let described = json!({"requestBody": {"content": content}, "responses": {"202": {}}});
        let mut send = described.clone();
        tell("/v1/groups/{group}/send", &mut send);
        assert_eq!(send["requestBody"]["content"]["application/json"]["schema"]["required"], json!(["type"]));
        assert!(["401", "403", "429"].iter().all(|status| send["responses"][status].is_object()), "{send}");
        let mut open = described.clone();
        tell("/healthz", &mut open);
        assert_eq!(open, described, "everybody may ask");
    }

    #[test]
    fn what_is_said_already_stays() {
        let mut operation = json!({
            "parameters": [{"name": "Idempotency-Key", "schema": {}}, {"name": "state", "schema": {"type": "string"}}],
            "responses": {"400": {"description": "mine"}},
        });
        tell("/v1/send", &mut operation);
        assert_eq!(operation["responses"]["400"]["description"], "mine");
        assert_eq!(operation["parameters"][1]["schema"], json!({"type": "string"}));
    }
}
