//! `Queries`: the named queries of the configuration. SQL is never sent by a client.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use groupcast_protocol::{ErrorCode, GroupName, Refusal};

use super::ask::MAX_STALE;
use super::claim_params::claim_of;
use super::nearest::known;
use super::params::{Bound, Given, Param, bind, canonical, read_words};
use super::problem::Problem;
use crate::config::query::{QueryConfig, SourceConfig};

/// One named query.
#[derive(Debug, Clone)]
pub struct Query {
    /// Its configuration.
    pub config: QueryConfig,
    pub(crate) sql: Arc<str>,
    pub(crate) params: Vec<Param>,
    /// How often it was invalidated. Clones share it.
    pub(crate) changes: Arc<AtomicU64>,
}

impl Query {
    /// Gives each parameter its value.
    pub(crate) fn bind(&self, given: &Given) -> Result<Bound, Refusal> {
        bind(&self.params, given)
            .map_err(|refusal| Refusal::new(refusal.code, format!("query `{}`: {}", self.config.name, refusal.message)))
    }

    /// Parameters that came as words, as JSON.
    pub(crate) fn read_words(&self, words: &[(String, String)]) -> Given {
        read_words(&self.params, words)
    }

    /// The values as one JSON object: the same text for the same values.
    pub(crate) fn canonical(&self, bound: &Bound) -> String {
        canonical(&self.params, bound)
    }
}

/// All named queries.
#[derive(Debug, Clone, Default)]
pub struct Queries {
    by_name: BTreeMap<String, Arc<Query>>,
    by_id: HashMap<u64, Arc<Query>>,
}

impl Queries {
    /// Reads the configuration. Whether the SQL is right, only the sources know: see [`super::check`].
    ///
    /// # Errors
    /// Every problem found.
    pub fn new(sources: &BTreeMap<String, SourceConfig>, configs: &[QueryConfig]) -> Result<Self, Vec<Problem>> {
        let (mut queries, mut problems) = (Self::default(), Vec::new());
        for config in configs {
            if let Err(found) = queries.add(sources, config) {
                problems.extend(found);
            }
        }
        if problems.is_empty() { Ok(queries) } else { Err(problems) }
    }

    /// The query of a name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Query>> {
        self.by_name.get(name)
    }

    /// The query of an id.
    pub fn by_id(&self, id: u64) -> Option<&Arc<Query>> {
        self.by_id.get(&id)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The queries, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Query>> {
        self.by_name.values()
    }

    /// The query of a name, or the refusal that lists the known ones.
    pub(crate) fn named(&self, name: &str) -> Result<&Arc<Query>, Refusal> {
        self.by_name(name).ok_or_else(|| {
            let shown: String = name.chars().take(99).collect();
            let message = format!("there is no query `{shown}`; {}", known(name, self.names()));
            Refusal::new(ErrorCode::UnknownQuery, message)
        })
    }

    /// The query of an id, or the refusal that lists the known ones.
    pub(crate) fn numbered(&self, id: u64) -> Result<&Arc<Query>, Refusal> {
        self.by_id(id).ok_or_else(|| {
            let mut ids: Vec<_> = self.by_id.iter().map(|(id, query)| (*id, &query.config.name)).collect();
            ids.sort_unstable();
            let shown: Vec<_> = ids.iter().take(20).map(|(id, name)| format!("{id} (`{name}`)")).collect();
            let known = if shown.is_empty() { "none are configured".to_owned() } else { shown.join(", ") };
            Refusal::new(ErrorCode::UnknownQuery, format!("there is no query with id {id}; known are {known}"))
        })
    }

    fn add(&mut self, sources: &BTreeMap<String, SourceConfig>, config: &QueryConfig) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, message: String| {
            problems.push(Problem { key: format!("query.{}.{key}", config.name), message });
        };
        if let Err(error) = GroupName::parse(&config.name) {
            problem("name", error.to_string().replace("group name", "query name"));
        }
        if self.by_name.contains_key(&config.name) {
            problem("name", format!("two queries are called `{}`; rename one", config.name));
        }
        if let Some(other) = self.by_id.get(&config.id) {
            problem("id", format!("id {} is that of `{}` too; give one another", config.id, other.config.name));
        }
        if !sources.contains_key(&config.source) {
            let known = known(&config.source, sources.keys().map(String::as_str));
            problem("source", format!("there is no `[source.{}]`; {known}", config.source));
        }
        let mut params = Vec::new();
        if config.params.contains_key(MAX_STALE) {
            problem(
                &format!("params.{MAX_STALE}"),
                "is what an ask says about the age of its answer; rename it".to_owned(),
            );
        }
        for (name, param) in &config.params {
            if claim_of(name).is_some() && param.default.is_some() {
                let why = "is what the asker's token says, and has no default; take that out, or rename the parameter";
                problem(&format!("params.{name}.default"), why.to_owned());
            }
            match Param::new(name, param) {
                Ok(param) => params.push(param),
                Err(why) => problem(&format!("params.{name}"), why),
            }
        }
        if problems.is_empty() {
            let query = Arc::new(Query {
                config: config.clone(),
                sql: config.sql.as_str().into(),
                params,
                changes: Arc::default(),
            });
            self.by_name.insert(config.name.clone(), Arc::clone(&query));
            self.by_id.insert(config.id, query);
            return Ok(());
        }
        Err(problems)
    }
}
