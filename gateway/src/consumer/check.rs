//! What `groupcast check` finds out about sources, queries and consumers.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::claims::Claims;
use super::problem::Problem;
use super::queries::{Queries, Query};
use super::source::{Source, Sources};
use crate::config::consumer::{ConsumerConfig, Run};
use crate::config::query::{QueryConfig, SourceConfig};

/// Every problem of the configuration: names, types, and each query prepared against its source. Blocks, on a runtime of
/// its own.
///
/// Relative paths of sources are relative to `base_dir`.
pub fn check(
    sources: &BTreeMap<String, SourceConfig>,
    queries: &[QueryConfig],
    consumers: &[ConsumerConfig],
    base_dir: &Path,
) -> Vec<Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(problems(sources, queries, consumers, base_dir)),
        Err(error) => vec![Problem::new("source", format!("the sources cannot be asked: {error}"))],
    }
}

async fn problems(
    sources: &BTreeMap<String, SourceConfig>,
    queries: &[QueryConfig],
    consumers: &[ConsumerConfig],
    base_dir: &Path,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let opened = Sources::open(sources, base_dir).map_err(|found| problems.extend(found)).ok();
    let known = Queries::new(sources, queries).map_err(|found| problems.extend(found)).ok();
    let known = Arc::new(known.unwrap_or_default());
    if let Some(opened) = &opened {
        let unreadable = unreadable(sources, opened).await;
        let readable = known.iter().filter(|query| !unreadable.contains_key(query.config.source.as_str()));
        let mut unprepared = Vec::new();
        for query in readable {
            unprepared.extend(prepare(query, opened).await);
        }
        problems.extend(unreadable.into_values().chain(unprepared));
    }
    if let Err(found) = Claims::new(consumers, Arc::clone(&known)) {
        problems.extend(found);
    }
    problems.extend(idle(consumers, queries));
    problems
}

/// The sources that cannot be read, by name.
async fn unreadable<'a>(sources: &'a BTreeMap<String, SourceConfig>, opened: &Sources) -> BTreeMap<&'a str, Problem> {
    let mut unreadable = BTreeMap::new();
    for name in sources.keys() {
        let Some(source) = opened.get(name) else { continue };
        if let Some((key, message)) = source.open_problem().await {
            unreadable.insert(name.as_str(), Problem::new(format!("source.{name}.{key}"), message));
        }
    }
    unreadable
}

async fn prepare(query: &Query, opened: &Sources) -> Vec<Problem> {
    let Some(source) = opened.get(&query.config.source) else { return Vec::new() };
    let declared: BTreeSet<&str> = query.params.iter().map(|param| param.name()).collect();
    let found = source.problems(&query.sql, &declared).await;
    if found.is_empty() && !query.config.key.is_empty() {
        return strange_key(query, source).await.into_iter().collect();
    }
    let key = format!("query.{}.sql", query.config.name);
    found.into_iter().map(|message| Problem::new(key.clone(), message)).collect()
}

/// A `key` that names what is no column.
async fn strange_key(query: &Query, source: &Source) -> Option<Problem> {
    let columns = source.columns(&query.sql).await?;
    let strange = query.config.key.iter().find(|name| !columns.contains(name))?;
    let message = format!("`{strange}` is none of its columns, which are `{}`", columns.join("`, `"));
    Some(Problem::new(format!("query.{}.key", query.config.name), message))
}

/// Consumers that could never do anything.
fn idle(consumers: &[ConsumerConfig], queries: &[QueryConfig]) -> Vec<Problem> {
    let asks = |consumer: &&ConsumerConfig| matches!(consumer.run, Run::Query | Run::Report);
    let idle = consumers.iter().filter(asks).filter(|_| queries.is_empty());
    let problem = |consumer: &ConsumerConfig| {
        let message = "it runs named queries, but there is no `[[query]]`; add one";
        Problem::new(format!("consumer.{}.run", consumer.name), message)
    };
    idle.map(problem).collect()
}
