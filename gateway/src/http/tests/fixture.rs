//! An API over real parts, without sockets.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use groupcast_channel_layer::{ChannelLayer, LayerConfig, Received, ShardInbox};
use groupcast_protocol::{ChannelName, NodeId};
use http::{HeaderMap, Request};
use serde_json::Value;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::app::{App, Parts};
use crate::auth::Auth;
use crate::config::{AuthConfig, Config, Sources};
use crate::consumer::{self, Claims, Queries};
use crate::dispatch::Dispatch;
use crate::health::Health;
use crate::hooks::Hooks;
use crate::http::router;
use crate::idempotency::Idempotency;
use crate::jobs::Jobs;
use crate::limits::Limits;
use crate::live::Live;
use crate::metrics::Metrics;

const CONFIG: &str = r#"
[source.demo]
kind = "sqlite"
path = "demo.db"
[[query]]
id = 7
name = "one"
source = "demo"
sql = "select 1"
[[consumer]]
name = "queries"
group = "my_group"
type = "execute_query"
run = "query"
durability = "memory"
"#;

/// The routes, and the parts behind them.
pub(super) struct Api {
    pub(super) app: App,
    router: Router,
    /// Held so that the layer's shard counts as alive.
    _inboxes: Vec<ShardInbox>,
}

impl Api {
    pub(super) async fn new() -> Self {
        Self::with(Router::new()).await
    }

    pub(super) async fn with(more: Router) -> Self {
        Self::put_together(more, None).await
    }

    /// The same with `[auth]`.
    pub(super) async fn guarded(auth: &AuthConfig) -> Self {
        Self::put_together(Router::new(), Some(auth)).await
    }

    async fn put_together(more: Router, auth: Option<&AuthConfig>) -> Self {
        let auth = Auth::new(auth).expect("good secrets");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("groupcast.toml");
        std::fs::write(&file, CONFIG).expect("the temporary folder is writable");
        let config = Arc::new(Config::load(&Sources::file(file)).expect("a good configuration").config);
        let jobs = Jobs::in_memory(&config.jobs);
        let queries = Arc::new(Queries::new(&config.source, &config.query).expect("good queries"));
        let claims = Arc::new(Claims::new(&config.consumer, queries.clone()).expect("good consumers"));
        let (layer, inboxes) = ChannelLayer::new(LayerConfig::new(NodeId::parse("gw1").expect("a good name")));
        let sources = consumer::Sources::open(&config.source, std::path::Path::new("."))
            .map_err(|problems| format!("{problems:?}"));
        let sources = Arc::new(sources.expect("good sources"));
        let cache = Arc::new(consumer::QueryCache::new(queries.clone(), 1 << 20, 100));
        let live = Live::new(&config, queries, sources, layer.clone());
        let dispatch = Dispatch::new(layer.clone(), claims, jobs.clone());
        let metrics = Arc::new(Metrics::new(layer.clone(), jobs.clone(), live.clone()));
        let checked = jobs.clone();
        let check = move || -> futures_util::future::BoxFuture<'static, Result<(), String>> {
            let jobs = checked.clone();
            Box::pin(async move { jobs.ready().await })
        };
        let health = Health::default().with_check("jobs", Arc::new(check));
        let idempotency = Idempotency::default();
        let limits = Limits::new(&config.limits);
        let hooks = Hooks::new(&config, &auth).expect("good hooks");
        let app = App::new(Parts {
            config,
            auth,
            limits,
            hooks,
            layer,
            jobs,
            dispatch,
            cache,
            live,
            idempotency,
            metrics,
            health,
        });
        Self { router: router(app.clone(), more), app, _inboxes: inboxes }
    }

    /// The next message of a channel, which must be there soon.
    pub(super) async fn receive(&self, channel: &str) -> Received {
        let channel = ChannelName::parse(channel).expect("a good name");
        let received = timeout(Duration::from_secs(5), self.app.layer.receive(&channel)).await;
        received.expect("a message within the deadline").expect("a channel of ours")
    }
}

/// A request that is being made.
pub(super) struct Call {
    builder: http::request::Builder,
    body: String,
}

pub(super) fn call(method: &str, path: &str) -> Call {
    Call { builder: Request::builder().method(method).uri(path).header("host", "gateway"), body: String::new() }
}

/// As `call`, without `Host`.
pub(super) fn call_without_host(method: &str, path: &str) -> Call {
    Call { builder: Request::builder().method(method).uri(path), body: String::new() }
}

impl Call {
    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.builder = self.builder.header(name, value);
        self
    }

    pub(super) fn body(mut self, body: &str) -> Self {
        self.body = body.to_owned();
        self
    }

    pub(super) async fn to(self, api: &Api) -> Answer {
        let request = self.builder.body(Body::from(self.body)).expect("a good request");
        let response = api.router.clone().oneshot(request).await.expect("the router is infallible");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a whole body");
        let text = String::from_utf8(body.to_vec()).expect("UTF-8");
        let json = serde_json::from_str(&text).unwrap_or_default();
        Answer { status: parts.status.as_u16(), headers: parts.headers, text, json }
    }
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
    /// `null` if it is none.
    pub(super) json: Value,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(super) fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    /// It is this problem, with all fields that a problem has.
    #[track_caller]
    pub(super) fn is(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code()), (status, code), "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.json["status"], status);
        for field in ["type", "title", "detail"] {
            assert!(self.json[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {}", self.text);
        }
    }
}
