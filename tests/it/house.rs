//! The house holds: which crate and which module may name which other (DESIGN.md, section 2).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What only the front door may use.
const HTTP_STACK: [&str; 6] = ["axum", "hyper", "hyper_util", "http_body_util", "tower", "tower_http"];
/// Databases are behind `jobs` and `consumer`.
const DATABASES: [&str; 3] = ["rusqlite", "tokio_postgres", "sqlx"];
/// What touches a socket.
const SOCKETS: [&str; 8] = [
    "TcpStream",
    "TcpListener",
    "TcpSocket",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "socket2",
    "tokio_tungstenite",
];

#[test]
fn the_protocol_is_pure() {
    let crates = Crates::read();
    assert_eq!(crates.direct("groupcast-protocol"), names(&["bytes", "serde", "serde_json", "thiserror"]));
    crates.never("groupcast-protocol", &["tokio", "axum", "hyper", "getrandom", "mio", "rusqlite"]);
}

#[test]
fn the_channel_layer_knows_no_http_and_no_database() {
    let crates = Crates::read();
    let forbidden = ["axum", "hyper", "http", "tower", "tower-http", "reqwest", "tokio-tungstenite", "tungstenite"];
    crates.never("groupcast-channel-layer", &forbidden);
    crates.never("groupcast-channel-layer", &["rusqlite", "libsqlite3-sys", "tokio-postgres", "groupcast"]);
}

#[test]
fn arrows_point_one_way_and_nothing_points_at_the_tests() {
    let crates = Crates::read();
    let own = |name: &str| -> BTreeSet<String> {
        crates.direct(name).into_iter().filter(|dependency| dependency.starts_with("groupcast")).collect()
    };
    assert_eq!(own("groupcast-protocol"), names(&[]));
    assert_eq!(own("groupcast-channel-layer"), names(&["groupcast-protocol"]));
    assert_eq!(own("groupcast"), names(&["groupcast-channel-layer", "groupcast-protocol"]));
    // The clients of the tests share no code with what they test.
    assert_eq!(own("groupcast-tests"), names(&[]));
}

#[test]
fn handlers_sockets_and_live_queries_know_no_database() {
    for module in ["http", "websocket", "live"] {
        check(module, &DATABASES);
    }
}

#[test]
fn jobs_consumers_and_live_queries_know_no_http() {
    for module in ["jobs", "consumer", "live"] {
        check(module, &HTTP_STACK);
        check(module, &["crate::http", "crate::websocket", "crate::server", "crate::cli", "crate::app"]);
    }
}

#[test]
fn the_service_that_is_asked_is_called_without_a_front_door_and_a_database() {
    for module in ["hooks", "backend"] {
        check(module, &HTTP_STACK);
        check(module, &DATABASES);
        check(module, &["crate::http", "crate::websocket", "crate::server", "crate::cli"]);
    }
}

#[test]
fn who_may_do_what_is_decided_without_a_clock_a_socket_or_a_database() {
    check("auth", &HTTP_STACK);
    check("auth", &DATABASES);
    check("auth", &["crate::clock", "crate::http", "crate::websocket", "crate::server", "crate::app", "reqwest"]);
}

#[test]
fn only_server_and_websocket_touch_sockets() {
    // The command line's clients, the demo's round trip and the tests' backend are the other end of the wire.
    let allowed = ["server", "stream", "websocket", "cli", "demo", "fake_backend"];
    for module in modules().into_iter().filter(|module| !allowed.contains(&module.as_str())) {
        check(&module, &SOCKETS);
    }
}

#[test]
fn no_queue_is_unbounded() {
    let word = concat!("unbounded", "_channel");
    for part in ["protocol", "channel-layer", "gateway", "tests"] {
        for file in sources(&root().join(part)) {
            let found = naming(&read(&file), &[word]);
            assert!(found.is_empty(), "{}: a queue without a bound: {found:?}", file.display());
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let found = without_reason(&read(&root().join("Cargo.toml")));
    assert!(found.is_empty(), "no comment on the line or above its paragraph: {found:?}");
}

/// The checks above can fail.
mod planted {
    use super::*;

    #[test]
    fn a_name_in_code_is_found_and_one_in_a_comment_is_not() {
        let source = "//! rusqlite in a doc\nuse rusqlite::Connection; // here\nlet my_rusqlite = 1;\n";
        assert_eq!(naming(source, &DATABASES), ["line 2: rusqlite"]);
        assert_eq!(naming("let url = \"http://x\"; let s: tokio::net::TcpStream;", &SOCKETS), ["line 1: TcpStream"]);
        assert_eq!(naming("use crate::{\n    app::App,\n    http,\n};", &["crate::http"]), ["line 3: crate::http"]);
        assert_eq!(naming("use crate::http::Problem;", &["crate::http"]), ["line 1: crate::http"]);
        assert!(naming("use crate::http_like::X;", &["crate::http"]).is_empty());
    }

    #[test]
    fn a_dependency_without_a_reason_is_found() {
        let manifest = "[workspace.dependencies]\nown = { path = \"x\" }\n\n# Why.\na = \"1\"\nb = \"1\"\n\nc = \"1\"   # why\nd = \"1\"\n\n[other]\ne = 1\n";
        assert_eq!(without_reason(manifest), ["d = \"1\""]);
    }

    #[test]
    #[should_panic(expected = "groupcast-channel-layer needs tokio")]
    fn a_forbidden_crate_is_found() {
        Crates::read().never("groupcast-channel-layer", &["tokio"]);
    }

    #[test]
    fn the_scanner_reads_the_gateway() {
        assert!(modules().len() > 8, "{:?}", modules());
        let naming_axum = files_of("http").iter().any(|file| !naming(&read(file), &["axum"]).is_empty());
        assert!(naming_axum, "the scanner does not even find axum in http");
    }
}

#[track_caller]
fn check(module: &str, forbidden: &[&str]) {
    let files = files_of(module);
    assert!(!files.is_empty(), "gateway/src has no module `{module}`");
    for file in files {
        let found = naming(&read(&file), forbidden);
        assert!(found.is_empty(), "{} must not name {found:?}", file.display());
    }
}

/// What a workspace's crates need to run, from `cargo metadata`.
struct Crates(BTreeMap<String, BTreeSet<String>>);

impl Crates {
    fn read() -> Self {
        let mut command = Command::new(env!("CARGO"));
        command.args(["metadata", "--format-version", "1", "--locked", "--offline"]).current_dir(root());
        let output = command.output().expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let list = |value: &Value| value.as_array().expect("a list").clone();
        let by_id: BTreeMap<String, String> =
            list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
        let is_needed = |dependency: &Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        let needs = |node: &Value| {
            let needed = list(&node["deps"]).into_iter().filter(is_needed);
            needed.map(|dependency| by_id[&text(&dependency["pkg"])].clone()).collect()
        };
        let nodes = list(&metadata["resolve"]["nodes"]);
        Self(nodes.iter().map(|node| (by_id[&text(&node["id"])].clone(), needs(node))).collect())
    }

    fn direct(&self, name: &str) -> BTreeSet<String> {
        self.0[name].clone()
    }

    #[track_caller]
    fn never(&self, name: &str, forbidden: &[&str]) {
        let (mut seen, mut ahead) = (BTreeSet::new(), vec![name.to_owned()]);
        while let Some(next) = ahead.pop() {
            if seen.insert(next.clone()) {
                ahead.extend(self.0[&next].iter().cloned());
            }
        }
        for other in forbidden {
            assert!(!seen.contains(*other), "{name} needs {other}");
        }
    }
}

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The modules of the gateway's library.
fn modules() -> Vec<String> {
    let entries = fs::read_dir(root().join("gateway/src")).expect("the gateway has sources");
    let stem = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    let all: BTreeSet<String> = entries.filter_map(|entry| stem(entry.ok()?.path())).collect();
    all.into_iter().filter(|name| name != "lib" && name != "main").collect()
}

/// A module's file and all below it.
fn files_of(module: &str) -> Vec<PathBuf> {
    let source = root().join("gateway/src");
    let own = source.join(format!("{module}.rs"));
    let below = source.join(module);
    let mut files = if below.is_dir() { sources(&below) } else { Vec::new() };
    files.extend(own.is_file().then_some(own));
    files
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("the folder can be read").path();
        let is_ours = path.file_name().is_some_and(|name| {
            name != "target" && name != "node_modules" && !name.as_encoded_bytes().starts_with(b".")
        });
        if path.is_dir() && is_ours {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Where code (not comments) names one of these paths, also as an entry of `use crate::{…}`.
fn naming(source: &str, forbidden: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_crate_list = false;
    for (at, line) in source.lines().enumerate() {
        let code = without_comment(line);
        in_crate_list |= code.contains("use crate::{");
        for name in forbidden {
            let listed = name.strip_prefix("crate::").is_some_and(|entry| in_crate_list && has_word(code, entry));
            if has_word(code, name) || listed {
                found.push(format!("line {}: {name}", at + 1));
            }
        }
        in_crate_list &= !code.contains("};");
    }
    found
}

/// A line up to `//`, which is no comment after a colon.
fn without_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].chars().next_back().is_some_and(is_part)
            && !code[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

/// Shared dependencies with neither a comment of their own nor one above their paragraph. Our own crates need none.
fn without_reason(manifest: &str) -> Vec<String> {
    let (_, rest) = manifest.split_once("[workspace.dependencies]\n").expect("versions are in the root manifest");
    let section = rest.split("\n[").next().unwrap_or(rest);
    let bare = |paragraph: &str| -> Vec<String> {
        let reason = paragraph.trim_start().starts_with('#');
        let lines = paragraph.lines().filter(|line| !line.trim().is_empty());
        let bare = lines.filter(|line| !reason && !line.contains('#') && !line.contains("path ="));
        bare.map(str::to_owned).collect()
    };
    section.split("\n\n").flat_map(bare).collect()
}
