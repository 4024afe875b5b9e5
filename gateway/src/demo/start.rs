//! What `groupcast demo` starts the gateway with: folder, configuration, routes of the live page, a welcome.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};

use super::page::{self, ASSETS};
use crate::config::{Config, Problems, QueryConfig, Setting, Sources};

/// Where the demo keeps its files.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Of `--once`: gone when this is dropped.
    temporary: bool,
}

impl Folder {
    /// `groupcast-data` of the working directory, or one of its own for a single round trip, which may run beside a
    /// demo that uses the other.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(once: bool) -> io::Result<Self> {
        let path = match once {
            true => std::env::temp_dir().join(format!("groupcast-demo-{}", std::process::id())),
            false => PathBuf::from("groupcast-data"),
        };
        std::fs::create_dir_all(&path)?;
        Ok(Self { path, temporary: once })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file with the flights.
    pub fn database(&self) -> PathBuf {
        self.path.join("demo.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed is left to the system's own cleaning of temporary files.
            drop(std::fs::remove_dir_all(&self.path));
        }
    }
}

/// The demo's configuration with its files in `folder`, on a free port when it runs `once`.
///
/// # Errors
/// When a variable of the environment says something that cannot be.
pub fn config(
    environment: Vec<(String, String)>,
    listen: Option<SocketAddr>,
    once: bool,
    folder: &Path,
) -> Result<Config, Problems> {
    let free_port = once.then(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let listen = listen.or(free_port).map(|address| address.to_string());
    let flags = listen.map(|value| Setting { flag: "--listen", key: "server.listen", value });
    let sources = Sources { environment, flags: flags.into_iter().collect(), ..Sources::text(super::CONFIG) };
    let mut config = Config::load(&sources)?.config;
    config.server.data_dir = folder.to_owned();
    for source in config.source.values_mut() {
        source.path = Some(folder.join("demo.db"));
    }
    Ok(config)
}

/// The live page and what it is made from.
pub fn routes(queries: &[QueryConfig]) -> Router {
    let queries = page::queries_json(queries);
    let queries = get(move || async move { ([(CONTENT_TYPE, "application/json")], queries) });
    let router = Router::new().route("/demo/queries.json", queries);
    ASSETS.iter().fold(router, |router, asset| {
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static(asset.content_type)),
            (CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::CONTENT_SECURITY_POLICY)),
            // The binary changes and the address does not.
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ];
        router.route(asset.path, get(move || async move { (headers, asset.bytes).into_response() }))
    })
}

/// What a person sees in the terminal.
pub fn welcome(url: &str) -> String {
    format!(
        r#"groupcast listens on {url}

  Open   {url}/           the live page
         {url}/docs       the HTTP API

  Or, in other terminals:
    groupcast --help
    groupcast subscribe my_group --url {url}
    groupcast query worst_routes origin=JFK --url {url}
    curl -X POST {url}/v1/groups/my_group/send \
         -H 'Content-Type: application/json' -d '{{"type":"execute_query","queryset_id":7}}'

  Ctrl-C drains and ends."#
    )
}
