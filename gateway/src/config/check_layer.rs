//! `[layer]`: bounds that can hold, and addresses that fit what they are for.

use groupcast_protocol::Pattern;

use super::check::Found;
use super::{Config, Dialect, Durability, LayerConfig, LayerDurability, LayerKind, StoreKind};

pub(super) fn check_layer(config: &Config, found: &mut Vec<Found>) {
    let layer = &config.layer;
    for (key, is_zero) in [
        ("capacity", layer.capacity == 0),
        ("expiry", layer.expiry.0.is_zero()),
        ("group_expiry", layer.group_expiry.0.is_zero()),
        ("timeout", layer.timeout.0.is_zero()),
    ] {
        if is_zero {
            found.push((format!("layer.{key}"), "must be more than 0".to_owned()));
        }
    }
    for (at, special) in layer.channel_capacity.iter().enumerate() {
        if let Err(error) = Pattern::parse(&special.pattern) {
            found.push((format!("layer.channel_capacity[{at}].pattern"), error.to_string()));
        }
        if special.capacity == 0 {
            found.push((format!("layer.channel_capacity[{at}].capacity"), "must be 1 or more".to_owned()));
        }
    }
    check_addresses(layer, found);
    check_dialect(layer, found);
    check_nats(layer, found);
    check_prefix(layer, found);
    check_queue(config, found);
}

fn check_addresses(layer: &LayerConfig, found: &mut Vec<Found>) {
    let mut wrong = |key: &str, why: &str| found.push((format!("layer.{key}"), why.to_owned()));
    let said = layer.places().count() + usize::from(!layer.hosts.is_empty());
    match (layer.kind, said) {
        (LayerKind::Memory, 0) | (LayerKind::Redis | LayerKind::Nats, 1) => {}
        (LayerKind::Memory, _) => {
            let key = if layer.hosts.is_empty() { "url" } else { "hosts" };
            wrong(key, "is for kind = \"redis\" and \"nats\"; take it out, or set that");
        }
        (LayerKind::Redis | LayerKind::Nats, 0) => {
            wrong("url", "is missing; name the broker with one of url, url_env, url_file and hosts");
        }
        (LayerKind::Redis | LayerKind::Nats, _) => {
            wrong("url", "is said twice; keep one of url, url_env, url_file and hosts");
        }
    }
    if layer.sentinel.is_some() && (layer.kind != LayerKind::Redis || layer.hosts.is_empty()) {
        wrong(
            "sentinel",
            "is the name of a master that sentinels watch; set kind = \"redis\" and hosts to the sentinels",
        );
    }
    if layer.cluster && (layer.kind != LayerKind::Redis || layer.sentinel.is_some()) {
        wrong("cluster", "is for kind = \"redis\", and not together with sentinel; take one of them out");
    }
    for (at, host) in layer.hosts.iter().enumerate() {
        if !fits(layer.kind, host.expose()) {
            wrong(&format!("hosts[{at}]"), expected(layer.kind));
        }
    }
    if layer.url.as_ref().is_some_and(|url| layer.kind != LayerKind::Memory && !fits(layer.kind, url.expose())) {
        wrong("url", expected(layer.kind));
    }
}

fn fits(kind: LayerKind, address: &str) -> bool {
    let schemes: &[&str] = match kind {
        LayerKind::Memory => &[],
        LayerKind::Redis => &["redis://", "rediss://", "unix://", "redis+unix://"],
        LayerKind::Nats => &["nats://", "tls://"],
    };
    schemes.iter().any(|scheme| address.starts_with(scheme))
}

fn expected(kind: LayerKind) -> &'static str {
    match kind {
        LayerKind::Nats => "is not the address of a NATS server; write it as in \"nats://127.0.0.1:4222\"",
        LayerKind::Memory | LayerKind::Redis => {
            "is not the address of a Redis server; write it as in \"redis://127.0.0.1:6379/0\""
        }
    }
}

fn check_dialect(layer: &LayerConfig, found: &mut Vec<Found>) {
    let mut wrong = |key: &str, why: &str| found.push((format!("layer.{key}"), why.to_owned()));
    let keys = layer.key_places().count();
    let usual = LayerConfig::default();
    for (key, is_said) in [
        ("encryption_keys", keys > 0),
        ("serializer", layer.serializer != usual.serializer),
        ("random_prefix_length", layer.random_prefix_length != usual.random_prefix_length),
    ] {
        match layer.dialect {
            Some(Dialect::ChannelsNats) if is_said => {
                wrong(
                    key,
                    "is for channels_redis: channels_nats writes plain MessagePack, and nothing else; take it out",
                );
            }
            None if is_said => {
                wrong(key, "is for what a dialect writes; set dialect = \"channels_redis.core\", or take it out");
            }
            Some(Dialect::ChannelsRedisPubsub) if is_said && key == "random_prefix_length" => {
                wrong(
                    key,
                    "is for channels_redis.core: in channels_redis.pubsub nothing is before a message; take it out",
                );
            }
            Some(_) | None => {}
        }
    }
    match (layer.dialect, layer.kind) {
        (Some(Dialect::ChannelsRedisCore | Dialect::ChannelsRedisPubsub), LayerKind::Memory | LayerKind::Nats) => {
            wrong("dialect", "is spoken over Redis; set kind = \"redis\", or dialect = \"channels_nats\" with NATS");
        }
        (Some(Dialect::ChannelsNats), LayerKind::Memory | LayerKind::Redis) => {
            wrong(
                "dialect",
                "is spoken over NATS; set kind = \"nats\", or dialect = \"channels_redis.core\" with Redis",
            );
        }
        _ => {}
    }
    if layer.dialect.is_some() && layer.cluster {
        wrong("cluster", "cannot go with a dialect: channels_redis does not work on a Redis Cluster");
    }
    if keys > 1 {
        wrong("encryption_keys", "is said in several ways; keep one of it, its _env and its _file");
    }
    if keys == 1 && layer.keys().is_empty() {
        wrong("encryption_keys", "has no key in it");
    }
    if layer.random_prefix_length > 64 {
        wrong(
            "random_prefix_length",
            "is more than 64 bytes; it has to be what CHANNEL_LAYERS says, which is 12 by default",
        );
    }
}

/// What is NATS's alone.
fn check_nats(layer: &LayerConfig, found: &mut Vec<Found>) {
    let mut wrong = |key: &str, why: &str| found.push((format!("layer.{key}"), why.to_owned()));
    let is_nats = layer.kind == LayerKind::Nats;
    if !matches!(layer.replicas, 1 | 3 | 5) || (layer.replicas > 1 && !is_nats) {
        wrong("replicas", "is 1, 3 or 5, and for kind = \"nats\" with a cluster of as many servers");
    }
    match &layer.monitoring {
        Some(_) if !is_nats => wrong("monitoring", "is for kind = \"nats\"; take it out"),
        Some(address) if address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) => {
            wrong("monitoring", "is no HOST:PORT; write it as in \"127.0.0.1:8222\"");
        }
        None if is_nats && layer.durability == LayerDurability::Fsync => {
            wrong("monitoring", "is missing: without it nothing proves that the server waits for its disk");
        }
        _ => {}
    }
    if is_nats && layer.prefix.as_ref().is_some_and(|prefix| prefix.contains(['.', ':'])) {
        wrong("prefix", "names streams of NATS, which have no `.` and no `:` in their names; leave them out");
    }
}

fn check_prefix(layer: &LayerConfig, found: &mut Vec<Found>) {
    let Some(prefix) = &layer.prefix else { return };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(is_plain) {
        let why = "must be 1 to 64 of letters, digits and `-_.:`, the same on all gateways";
        found.push(("layer.prefix".to_owned(), why.to_owned()));
    }
}

/// Gateways that share groups share the work that comes by them.
fn check_queue(config: &Config, found: &mut Vec<Found>) {
    let is_shared = config.layer.kind != LayerKind::Memory;
    let keeps_jobs = config.consumer.iter().any(|consumer| consumer.durability != Durability::Memory);
    if is_shared && keeps_jobs && config.jobs.store == StoreKind::Sqlite && !config.jobs.single_gateway {
        let why = "is one gateway's own, and with a broker there may be several: a job that one of them has, the others \
                   cannot show, cancel or finish; set store = \"postgres\", or single_gateway = true if there is only one";
        found.push(("jobs.store".to_owned(), why.to_owned()));
    }
    if config.jobs.single_gateway && !is_shared {
        let why = "is for [layer] kind = \"redis\" and \"nats\"; take it out";
        found.push(("jobs.single_gateway".to_owned(), why.to_owned()));
    }
}
