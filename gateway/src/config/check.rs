//! What a configuration means: names used once, references that lead somewhere, bounds that can hold.

use std::collections::HashSet;
use std::time::Duration;

use groupcast_protocol::GroupName;
use groupcast_protocol::names::NAME_LEN_MAX;

use super::check_auth::check_auth;
use super::check_backend::{check_backend, check_no_backend};
use super::check_hooks::check_hooks;
use super::check_layer::check_layer;
use super::check_params::check_params;
use super::check_server::check_server;
use super::{
    Budget, Config, ConsumerConfig, Durability, GroupConfig, LimitsConfig, QueryConfig, Role, Run, SourceConfig,
    SourceKind, StoreKind,
};
use crate::clock;
use crate::schedule::{Timetable, TimetableError};

/// More messages than this are no history but a database: each costs its bytes in memory, and some 100 beside.
const HISTORY_MESSAGES_MAX: usize = 1_000_000;

/// More often is a load and no use: nobody reads faster.
const REFRESH_MIN: Duration = Duration::from_millis(250);

/// Tags of one query, as of one `POST /v1/invalidate`.
const TAGS_MAX: usize = 100;

/// Why a group of a live query is nobody else's.
const OF_LIVE_QUERY: &str = "groups whose names begin with `query.` carry live queries; choose another name";

/// The largest `rate_burst`: more is no limit.
const BURST_MAX: u32 = 1_000_000;

/// Less than that the process has when it does nothing.
const MEMORY_MIN: usize = 32 << 20;

/// A key and what is wrong with it.
pub(super) type Found = (String, String);

/// Everything that is wrong.
pub(super) fn check(config: &Config) -> Vec<Found> {
    let mut found = Vec::new();
    check_server(config, &mut found);
    check_limits(&config.limits, &mut found);
    check_layer(config, &mut found);
    check_groups(&config.group, &mut found);
    check_jobs(config, &mut found);
    check_sources(config, &mut found);
    check_queries(config, &mut found);
    check_consumers(config, &mut found);
    check_schedules(config, &mut found);
    match &config.auth {
        Some(auth) => check_auth(auth, config.hooks.as_ref(), &mut found),
        None => check_types_without_auth(config, &mut found),
    }
    if let Some(hooks) = &config.hooks {
        check_hooks(hooks, &mut found);
    }
    found.extend(config.tracing.problems().into_iter().map(|(key, why)| (format!("tracing.{key}"), why)));
    found
}

/// Silence would be worse: everybody would send what the list seems to keep out.
fn check_types_without_auth(config: &Config, found: &mut Vec<Found>) {
    for (at, _) in config.group.iter().enumerate().filter(|(_, group)| group.types.is_some()) {
        let why =
            "says what clients may send, and without [auth] everybody may send everything; add [auth], or take it out";
        found.push((format!("group[{at}].types"), why.to_owned()));
    }
}

fn check_limits(limits: &LimitsConfig, found: &mut Vec<Found>) {
    let mut least = |key: &str, value: usize, least: usize| {
        if value < least {
            found.push((format!("limits.{key}"), format!("is {value} and must be {least} or more")));
        }
    };
    least("message_bytes", limits.message_bytes.0, 1024);
    least("publish_bytes", limits.publish_bytes.0, limits.message_bytes.0);
    least("connections", limits.connections, 1);
    least("connections_per_address", limits.connections_per_address, 1);
    least("connections_per_user", limits.connections_per_user, 1);
    if let Budget::Bytes(bytes) = limits.memory {
        least("memory", bytes.0, MEMORY_MIN);
    }
    least("live_queries", limits.live_queries, 1);
    least("subscriptions_per_connection", limits.subscriptions_per_connection, 1);
    least("commands_in_flight", limits.commands_in_flight, 1);
    least("commands_per_second", limits.commands_per_second as usize, 1);
    least("control_frames_per_second", limits.control_frames_per_second as usize, 1);
    least("log_bytes", limits.log_bytes.0, limits.message_bytes.0);
    least("log_bytes_per_shard", limits.log_bytes_per_shard.0, limits.log_bytes.0);
    least("history_bytes", limits.history_bytes.0, limits.message_bytes.0);
    least("channels", limits.channels, limits.connections);
    least("cache_results", limits.cache_results, 1);
    least("shard_queue", limits.shard_queue, 1);
    // hyper panics below 8 KiB.
    least("header_bytes", limits.header_bytes.0, 8192);
    let times = [
        ("publish_timeout", limits.publish_timeout),
        ("first_byte_timeout", limits.first_byte_timeout),
        ("handshake_timeout", limits.handshake_timeout),
        ("header_timeout", limits.header_timeout),
        ("body_timeout", limits.body_timeout),
        ("idle_timeout", limits.idle_timeout),
        ("ping_interval", limits.ping_interval),
        ("pong_timeout", limits.pong_timeout),
        ("write_timeout", limits.write_timeout),
        ("wait_timeout", limits.wait_timeout),
        ("drain_timeout", limits.drain_timeout),
    ];
    for (key, _) in times.iter().filter(|(_, time)| time.0.is_zero()) {
        found.push((format!("limits.{key}"), "must be longer than 0".to_owned()));
    }
}

fn check_groups(groups: &[GroupConfig], found: &mut Vec<Found>) {
    for (at, group) in groups.iter().enumerate() {
        let key = |last: &str| format!("group[{at}].{last}");
        check_group_pattern(&key("name"), &group.name, found);
        if let Some(first) = groups[..at].iter().find(|first| covers(&first.name, &group.name)) {
            let message = format!(
                "`{}` is never looked at, because `{}` above matches first; put the narrower one above",
                group.name, first.name
            );
            found.push((key("name"), message));
        }
        let Some(history) = &group.history else { continue };
        if !(1..=HISTORY_MESSAGES_MAX).contains(&history.messages) {
            let message = format!("is {} and must be from 1 to {HISTORY_MESSAGES_MAX}", history.messages);
            found.push((key("history.messages"), message));
        }
        if history.age.0.is_zero() {
            found.push((key("history.age"), "must be longer than 0".to_owned()));
        }
    }
}

/// Whether every name that `narrow` matches is matched by `wide`.
fn covers(wide: &str, narrow: &str) -> bool {
    match wide.strip_suffix('*') {
        Some(prefix) => narrow.strip_suffix('*').unwrap_or(narrow).starts_with(prefix),
        None => wide == narrow,
    }
}

/// Below it, a busy machine is late often enough to lose work that is being done.
const LEASE_MIN: Duration = Duration::from_secs(1);

fn check_jobs(config: &Config, found: &mut Vec<Found>) {
    let jobs = &config.jobs;
    for (key, is_zero) in [
        ("retention", jobs.retention.0.is_zero()),
        ("max_queued", jobs.max_queued == 0),
        ("cpu_threads", jobs.cpu_threads == Some(0)),
        ("cpu_queue", jobs.cpu_queue == 0),
        ("retry_base", jobs.retry_base.0.is_zero()),
    ] {
        if is_zero {
            found.push((format!("jobs.{key}"), "must be more than 0".to_owned()));
        }
    }
    match (jobs.store, jobs.places().count()) {
        (StoreKind::Postgres, 1) | (StoreKind::Sqlite, 0) => {}
        (StoreKind::Postgres, 0) => {
            let message = "is missing; name the server with one of url, url_env and url_file";
            found.push(("jobs.url".to_owned(), message.to_owned()));
        }
        (StoreKind::Postgres, _) => {
            found.push(("jobs.url".to_owned(), "is said twice; keep one of url, url_env and url_file".to_owned()));
        }
        (StoreKind::Sqlite, _) => {
            found.push(("jobs.url".to_owned(), "is for store = \"postgres\"; take it out, or set that".to_owned()));
        }
    }
    if !is_schema(&jobs.schema) {
        let message = "must be 1 to 40 of a-z, 0-9 and _, and not begin with a digit or `pg_`";
        found.push(("jobs.schema".to_owned(), message.to_owned()));
    }
    if jobs.lease.0 < LEASE_MIN {
        found.push(("jobs.lease".to_owned(), format!("is {} and must be 1s or more", jobs.lease)));
    }
    if jobs.retry_max < jobs.retry_base {
        found.push(("jobs.retry_max".to_owned(), format!("is less than retry_base ({})", jobs.retry_base)));
    }
}

/// A name that needs no quotes, and whose channel of hints fits into PostgreSQL's 63 bytes.
fn is_schema(name: &str) -> bool {
    let known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    let begins = name.bytes().next().is_some_and(|c| !c.is_ascii_digit());
    begins && name.len() <= 40 && name.bytes().all(known) && !name.starts_with("pg_")
}

fn check_sources(config: &Config, found: &mut Vec<Found>) {
    for (name, source) in &config.source {
        if let Err(error) = GroupName::parse(name) {
            found.push((format!("source.{name}"), error.to_string().replace("group name", "source's name")));
        }
        check_source(source, &|last: &str| format!("source.{name}.{last}"), found);
        if !(1..=64).contains(&source.threads) {
            found.push((format!("source.{name}.threads"), "must be from 1 to 64".to_owned()));
        }
    }
}

fn check_source(source: &SourceConfig, key: &dyn Fn(&str) -> String, found: &mut Vec<Found>) {
    let places = source.places("").count();
    match source.kind {
        SourceKind::Sqlite => {
            if source.path.is_none() {
                found.push((key("path"), "is missing; name the SQLite file".to_owned()));
            }
            if places > 0 {
                found.push((key("url"), "is for kind = \"postgres\"; take it out, or set that".to_owned()));
            }
        }
        SourceKind::Postgres => {
            if places == 0 {
                found
                    .push((key("url"), "is missing; name the server with one of url, url_env and url_file".to_owned()));
            }
            if places > 1 {
                found.push((key("url"), "is said twice; keep one of url, url_env and url_file".to_owned()));
            }
            if source.path.is_some() {
                found.push((key("path"), "is for kind = \"sqlite\"; take it out, or set that".to_owned()));
            }
        }
    }
    if !(1..=1000).contains(&source.pool) {
        found.push((key("pool"), "must be from 1 to 1000".to_owned()));
    }
    if source.role.as_deref() == Some("") {
        found.push((key("role"), "is empty; name a role or take it out".to_owned()));
    }
}

fn check_queries(config: &Config, found: &mut Vec<Found>) {
    let (mut ids, mut names) = (HashSet::new(), HashSet::new());
    for (at, query) in config.query.iter().enumerate() {
        let key = |last: &str| format!("query[{at}].{last}");
        if !ids.insert(query.id) {
            found.push((key("id"), format!("{} is the id of an earlier query too; give each its own", query.id)));
        }
        check_name(key("name"), &query.name, found);
        once(&mut names, &query.name, key("name"), found);
        check_query(config, query, &key, found);
        check_live(query, &key, found);
        check_params(query, &key, found);
    }
}

fn check_query(config: &Config, query: &QueryConfig, key: &dyn Fn(&str) -> String, found: &mut Vec<Found>) {
    if !config.source.contains_key(&query.source) {
        let known: Vec<&str> = config.source.keys().map(String::as_str).collect();
        let way_out = match known.as_slice() {
            [] => format!("add [source.{}]", query.source),
            known => super::nearest::suggest(&query.source, known),
        };
        found.push((key("source"), format!("there is no [source.{}]; {way_out}", query.source)));
    }
    for (last, is_zero) in [
        ("sql", query.sql.trim().is_empty()),
        ("timeout", query.timeout.0.is_zero()),
        ("max_rows", query.max_rows == 0),
        ("max_bytes", query.max_bytes.0 == 0),
        ("cache", query.cache.is_some_and(|cache| cache.0.is_zero())),
    ] {
        if is_zero {
            found.push((key(last), "must not be empty or 0".to_owned()));
        }
    }
}

fn check_live(query: &QueryConfig, key: &dyn Fn(&str) -> String, found: &mut Vec<Found>) {
    if query.refresh.is_some_and(|refresh| refresh.0 < REFRESH_MIN) {
        found.push((key("refresh"), format!("must be {} ms or more", REFRESH_MIN.as_millis())));
    }
    if query.tags.len() > TAGS_MAX {
        found.push((key("tags"), format!("has {} tags, at most {TAGS_MAX} are allowed", query.tags.len())));
    }
    for (last, names) in [("tags", &query.tags), ("key", &query.key)] {
        let mut seen = HashSet::new();
        for (at, name) in names.iter().enumerate() {
            let key = key(&format!("{last}[{at}]"));
            if name.is_empty() || name.chars().count() > NAME_LEN_MAX {
                found.push((key, format!("must have 1 to {NAME_LEN_MAX} characters")));
            } else if !seen.insert(name) {
                found.push((key, format!("`{name}` is there twice; name it once")));
            }
        }
    }
}

fn check_consumers(config: &Config, found: &mut Vec<Found>) {
    let mut names = HashSet::new();
    for (at, consumer) in config.consumer.iter().enumerate() {
        let key = |last: &str| format!("consumer[{at}].{last}");
        check_name(key("name"), &consumer.name, found);
        once(&mut names, &consumer.name, key("name"), found);
        check_group_pattern(&key("group"), &consumer.group, found);
        check_consumer(consumer, &key, found);
        if config.server.role != Role::All && consumer.durability == Durability::Memory {
            let why = "stays in the process that took it, which with this role is not the one that runs it";
            found.push((key("durability"), format!("a job in memory {why}; use \"os\" or \"disk\"")));
        }
        if matches!(consumer.run, Run::Query | Run::Report) && config.query.is_empty() {
            found.push((key("run"), "there is no [[query]] that it could run; add one".to_owned()));
        }
    }
}

fn check_consumer(consumer: &ConsumerConfig, key: &dyn Fn(&str) -> String, found: &mut Vec<Found>) {
    if consumer.kind.is_empty() {
        found.push((key("type"), "is empty; name the message type that it claims".to_owned()));
    }
    if consumer.kind.starts_with("job.") && !consumer.chain {
        let why = "is a type of events of jobs";
        found.push((key("type"), format!("`{}` {why}; set chain = true to feed on other consumers", consumer.kind)));
    }
    if !(1..=1024).contains(&consumer.concurrency) {
        found.push((key("concurrency"), "must be from 1 to 1024".to_owned()));
    }
    match (consumer.rate, consumer.rate_burst) {
        (_, None) => {}
        (None, Some(_)) => found.push((key("rate_burst"), "belongs to `rate`, which is not set; add one".to_owned())),
        (Some(_), Some(burst)) if (1..=BURST_MAX).contains(&burst) => {}
        (Some(_), Some(_)) => found.push((key("rate_burst"), format!("must be from 1 to {BURST_MAX}"))),
    }
    if consumer.max_attempts == 0 {
        found.push((key("max_attempts"), "must be 1 or more".to_owned()));
    }
    if consumer.coalesce && !matches!(consumer.run, Run::Query | Run::Report) {
        found.push((key("coalesce"), "is for `query` and `report`: nobody knows what else is the same".to_owned()));
    }
    if consumer.timeout.0.is_zero() {
        found.push((key("timeout"), "must be longer than 0".to_owned()));
    }
    match consumer.run {
        Run::Http => check_backend(consumer, key, found),
        Run::Query | Run::Report | Run::Embedded => check_no_backend(consumer, key, found),
    }
}

fn check_schedules(config: &Config, found: &mut Vec<Found>) {
    let mut names = HashSet::new();
    for (at, schedule) in config.schedule.iter().enumerate() {
        let key = |last: &str| format!("schedule[{at}].{last}");
        check_name(key("name"), &schedule.name, found);
        once(&mut names, &schedule.name, key("name"), found);
        match GroupName::parse(&schedule.group) {
            Err(error) => found.push((key("group"), error.to_string())),
            Ok(group) if group.is_of_live_query() => found.push((key("group"), OF_LIVE_QUERY.to_owned())),
            Ok(_) => {}
        }
        match Timetable::parse(&schedule.cron, &schedule.timezone, clock::now_ms()) {
            Ok(_) => {}
            Err(error @ TimetableError::Zone(_)) => found.push((key("timezone"), error.to_string())),
            Err(error) => found.push((key("cron"), error.to_string())),
        }
        match schedule.message() {
            Ok(message) if message.kind().starts_with("job.") => {
                let why = "is a type of events of jobs, which only consumers send; choose another";
                found.push((key("message.type"), format!("`{}` {why}", message.kind())));
            }
            Ok(message) if message.raw().len() > config.limits.publish_bytes.0 => {
                let message = format!("is larger than [limits] publish_bytes ({})", config.limits.publish_bytes);
                found.push((key("message"), message));
            }
            Ok(_) => {}
            Err(why) => found.push((key("message"), why)),
        }
    }
}

fn check_name(key: String, name: &str, found: &mut Vec<Found>) {
    if let Err(error) = GroupName::parse(name) {
        found.push((key, error.to_string().replace("group name", "name")));
    }
}

/// A pattern of groups has no `!`, which only channels may have.
fn check_group_pattern(key: &str, text: &str, found: &mut Vec<Found>) {
    let stem = text.strip_suffix('*').unwrap_or(text);
    if stem.is_empty() && !text.is_empty() {
        return;
    }
    match GroupName::parse(stem) {
        Err(error) => found.push((key.to_owned(), error.to_string())),
        Ok(name) if name.is_of_live_query() => found.push((key.to_owned(), OF_LIVE_QUERY.to_owned())),
        Ok(_) => {}
    }
}

fn once(seen: &mut HashSet<String>, name: &str, key: String, found: &mut Vec<Found>) {
    if !seen.insert(name.to_owned()) {
        found.push((key, format!("`{name}` is used twice; names are unique")));
    }
}
