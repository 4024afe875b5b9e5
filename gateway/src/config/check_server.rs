//! `[server]`: addresses that nobody reaches who should not, and words that mean something.

use std::str::FromStr;

use groupcast_protocol::NodeId;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::check::Found;
use super::{Config, Role, StoreKind};

pub(super) fn check_server(config: &Config, found: &mut Vec<Found>) {
    let server = &config.server;
    for (key, address) in [("listen", Some(server.listen)), ("ops_listen", server.ops_listen)] {
        let Some(address) = address.filter(|address| !address.ip().to_canonical().is_loopback()) else { continue };
        if config.auth.is_none() {
            let why = "is reachable from other machines, and without [auth] everybody could read and send everything";
            let message = format!("`{address}` {why}; add [auth], or listen on 127.0.0.1 or [::1]");
            found.push((format!("server.{key}"), message));
        }
    }
    if server.ops_listen == Some(server.listen) && server.listen.port() != 0 {
        let why = "is the address of `listen`, which serves clients; give it another port, or leave it out";
        found.push(("server.ops_listen".to_owned(), why.to_owned()));
    }
    if let Err(error) = NodeId::parse(&server.node) {
        found.push(("server.node".to_owned(), error.to_string()));
    }
    if server.role != Role::All && config.jobs.store == StoreKind::Sqlite {
        let why = "is for processes that share a job store, and a directory of SQLite files has one owner";
        let message = format!("this role {why}; set [jobs] store = \"postgres\", or use \"all\"");
        found.push(("server.role".to_owned(), message));
    }
    if server.shards > 256 {
        found.push((
            "server.shards".to_owned(),
            "must be from 1 to 256, or 0 for as many as suit the machine".to_owned(),
        ));
    }
    for (key, path) in server.tls.iter().flat_map(|tls| [("cert", &tls.cert), ("key", &tls.key)]) {
        if path.as_os_str().is_empty() {
            found.push((format!("server.tls.{key}"), "is empty; name a PEM file".to_owned()));
        }
    }
    if let Err(why) = check_log(&server.log) {
        found.push(("server.log".to_owned(), why));
    }
    for (at, network) in server.trusted_proxies.iter().enumerate().filter(|(_, network)| network.is_all()) {
        let why = "is every address there is: whoever comes could say that he is anybody; name the proxies";
        found.push((format!("server.trusted_proxies[{at}]"), format!("`{network}` {why}")));
    }
    for (at, origin) in server.origins.iter().enumerate().filter(|(_, origin)| !is_origin(origin)) {
        let message =
            format!("`{origin}` is not an origin; write scheme, host and port, as in \"https://example.org\"");
        found.push((format!("server.origins[{at}]"), message));
    }
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
    let parsed = authority.parse::<http::uri::Authority>();
    lower && matches!(scheme, "http" | "https") && parsed.is_ok_and(|a| !a.as_str().contains('@'))
}

/// A word that is no level would be taken for the name of a part of the program, and all others would be silent.
fn check_log(filter: &str) -> Result<(), String> {
    let told = |why: String| {
        format!("{why}; write a level, as in \"info\", or parts with theirs, as in \"info,groupcast=debug\"")
    };
    EnvFilter::try_new(filter).map_err(|error| told(format!("not a filter: {error}")))?;
    let bare = |part: &&str| !part.is_empty() && !part.contains(['=', '[']) && LevelFilter::from_str(part).is_err();
    match filter.split(',').map(str::trim).find(bare) {
        Some(part) => Err(told(format!("`{part}` is no level"))),
        None => Ok(()),
    }
}
