use std::net::IpAddr;
use std::sync::Arc;

use groupcast_channel_layer::{ChannelLayer, LayerConfig};
use groupcast_protocol::NodeId;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use super::*;
use crate::app::{App, Parts};
use crate::auth::{Auth, Caller};
use crate::config::Config;
use crate::consumer::{Claims, Queries, QueryCache, Sources};
use crate::dispatch::Dispatch;
use crate::health::Health;
use crate::hooks::Hooks;
use crate::idempotency::Idempotency;
use crate::jobs::Jobs;
use crate::limits::Limits;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::server::Admission;

/// What a sleeper costs, but for what it has in the layer and in the kernel. Who makes a connection larger makes ten
/// thousand of them larger: think twice, then move the bound.
#[test]
fn a_connection_is_small() {
    let future = size_of_output(drive);
    eprintln!("task {future}, connection {}, session {}", size_of::<Connection>(), size_of::<Session>());
    assert!(future <= 128, "the task of a connection has {future} bytes");
    assert!(size_of::<Connection>() <= 400, "a connection has {} bytes", size_of::<Connection>());
    assert!(size_of::<Session>() <= 200, "a session has {} bytes", size_of::<Session>());
    assert!(size_of::<Socket>() <= 128, "a socket has {} bytes", size_of::<Socket>());
}

fn size_of_output<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
    size_of::<F>()
}

#[tokio::test]
async fn a_panic_costs_its_own_connection_and_leaves_nothing_behind() {
    let local = LocalSet::new();
    local.run_until(panic_and_look()).await;
}

async fn panic_and_look() {
    let config = Arc::new(Config::default());
    let limits = Limits::new(&config.limits);
    let admission = Admission::new(&config, limits.clone());
    let jobs = Jobs::in_memory(&config.jobs);
    let queries = Arc::new(Queries::new(&config.source, &config.query).expect("no queries are good queries"));
    let claims = Arc::new(Claims::new(&config.consumer, queries.clone()).expect("no consumers are good consumers"));
    let (layer, mut inboxes) = ChannelLayer::new(LayerConfig::new(NodeId::parse("gw1").expect("a good name")));
    let sources = Sources::open(&config.source, std::path::Path::new(".")).map_err(|problems| format!("{problems:?}"));
    let sources = Arc::new(sources.expect("good sources"));
    let cache = Arc::new(QueryCache::new(queries.clone(), 1 << 20, 100));
    let live = Live::new(&config, queries, sources, layer.clone());
    let dispatch = Dispatch::new(layer.clone(), claims, jobs.clone());
    let metrics = Arc::new(Metrics::new(layer.clone(), jobs.clone(), live.clone()));
    let (idempotency, health) = (Idempotency::default(), Health::default());
    let app = App::new(Parts {
        config,
        auth: Auth::default(),
        limits,
        hooks: Hooks::default(),
        layer,
        jobs,
        dispatch,
        cache,
        live,
        idempotency,
        metrics,
        health,
    });
    let reserved = app.layer.reserve_name();
    let (shard, _events) = inboxes.remove(0).open();
    let local = Rc::new(Local::new(app, shard));

    let (stream, mut client) = pair().await;
    let place = admission.enter(IpAddr::from([127, 0, 0, 1])).expect("there is room");
    let opening = Opening {
        caller: Caller::Everybody,
        reserved,
        given: Vec::new(),
        groups: vec![(GroupName::parse("g").expect("a good name"), None)],
        peer: "127.0.0.1".to_owned(),
        place,
        seat: None,
        trace: None,
        head: Bytes::new(),
        deflate: false,
        echo: false,
    };
    let connection = Connection::open(local.clone(), stream, b"", opening).expect("the layer has room");
    assert_eq!(local.shard.borrow().len(), 1);
    let task = tokio::task::spawn_local(async move {
        let _connection = connection;
        panic!("on purpose");
    });
    assert!(task.await.is_err_and(|error| error.is_panic()));
    // Ends only when the shard lets go of its end of the socket, too.
    let read = timeout(Duration::from_secs(5), client.read_to_end(&mut Vec::new())).await;
    read.expect("it is closed").expect("it is closed in good order");
    assert!(local.shard.borrow().is_empty());
    assert_eq!(local.app.metrics.panics.get(), 1);
}

async fn pair() -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let client = TcpStream::connect(listener.local_addr().expect("it is bound")).await.expect("it listens");
    let (server, _) = listener.accept().await.expect("a client has come");
    (Stream::Tcp(server), client)
}
