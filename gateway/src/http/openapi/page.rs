//! `/docs`: the description as one page of HTML, without scripts and without anything to load.

use serde_json::{Map, Value};

const STYLE: &str = "\
:root{color-scheme:light dark;--line:light-dark(#d7dbe0,#3a4048);--soft:light-dark(#f5f6f8,#1d2126);--dim:light-dark(#5b6470,#9aa4b0)}\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
code,pre{font:14px/1.45 ui-monospace,monospace}pre{background:var(--soft);padding:.75rem;overflow:auto;border-radius:6px}\
details{border:1px solid var(--line);border-radius:6px;margin:.5rem 0;padding:.5rem .75rem}summary{cursor:pointer}\
summary code b{display:inline-block;min-width:4.2rem}h2{margin-top:2rem}.dim{color:var(--dim)}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.25rem .75rem .25rem 0;border-bottom:1px solid var(--line)}";

const METHODS: &[&str] = &["get", "put", "post", "delete", "patch"];

/// The page.
pub(super) fn render(api: &Value) -> String {
    let text = |pointer: &str| escape(api.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
    let (title, version) = (text("/info/title"), text("/info/version"));
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title} API</title><style>{STYLE}</style><h1>{title} API <span class=dim>{version}</span></h1>\
         <p>{}<p><a href=\"/openapi.json\">openapi.json</a>",
        prose(api.pointer("/info/description")),
    );
    for tag in api["tags"].as_array().into_iter().flatten() {
        let name = tag["name"].as_str().unwrap_or_default();
        html += &format!("<h2 id=\"{0}\">{0}</h2><p class=dim>{1}", escape(name), prose(tag.get("description")));
        for (path, method, operation) in operations(api).filter(|(_, _, o)| o.pointer("/tags/0") == Some(&tag["name"]))
        {
            html += &render_operation(path, method, operation);
        }
    }
    html += "<h2 id=schemas>Forms</h2>";
    for (name, schema) in object(api.pointer("/components/schemas")) {
        html += &format!(
            "<details id=\"{0}\"><summary><code>{0}</code></summary>{1}</details>",
            escape(name),
            json(schema)
        );
    }
    html
}

fn operations(api: &Value) -> impl Iterator<Item = (&String, &'static str, &Value)> {
    let of_path = |(path, methods)| METHODS.iter().filter_map(move |m| Some((path, *m, Value::get(methods, m)?)));
    object(api.get("paths")).flat_map(of_path)
}

fn render_operation(path: &str, method: &str, operation: &Value) -> String {
    let mut html = format!(
        "<details><summary><code><b>{}</b> {}</code> <span class=dim>{}</span></summary><p>{}",
        method.to_uppercase(),
        escape(path),
        prose(operation.get("summary")),
        prose(operation.get("description")),
    );
    if let Some(params) = operation["parameters"].as_array() {
        html += "<table><tr><th>Parameter<th>In<th>Meaning";
        for param in params {
            let field = |name: &str| escape(param[name].as_str().unwrap_or_default());
            let must = if param["required"] == true { " (required)" } else { "" };
            html += &format!(
                "<tr><td><code>{}</code><td>{}{must}<td>{}",
                field("name"),
                field("in"),
                prose(param.get("description"))
            );
        }
        html += "</table>";
    }
    if let Some(body) = operation.get("requestBody") {
        html += &format!("<h4>Body</h4><p>{}{}", prose(body.get("description")), contents(body));
    }
    html += "<h4>Answers</h4><table>";
    for (status, response) in object(operation.get("responses")) {
        html += &format!(
            "<tr><td><b>{}</b><td>{}<td>{}",
            escape(status),
            prose(response.get("description")),
            contents(response)
        );
    }
    html + "</table></details>"
}

/// Media types, each with its form or its example.
fn contents(part: &Value) -> String {
    let show = |(media_type, content): (&String, &Value)| {
        let form = match content.pointer("/schema/$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next()) {
            Some(name) => format!(" <a href=\"#{0}\"><code>{0}</code></a>", escape(name)),
            None => String::new(),
        };
        let example = content.get("example").map(json).unwrap_or_default();
        format!("<div><code>{}</code>{form}{example}</div>", escape(media_type))
    };
    object(part.get("content")).map(show).collect()
}

fn json(value: &Value) -> String {
    format!("<pre>{}</pre>", escape(&serde_json::to_string_pretty(value).unwrap_or_default()))
}

/// Text in which `code` is marked.
fn prose(value: Option<&Value>) -> String {
    let text = escape(value.and_then(Value::as_str).unwrap_or_default());
    let pieces = text.split('`').enumerate();
    pieces.map(|(at, piece)| if at % 2 == 1 { format!("<code>{piece}</code>") } else { piece.to_owned() }).collect()
}

fn object(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
