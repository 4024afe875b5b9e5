//! `QueryCache`: what queries gave, for identical asks that come soon after (`[[query]] cache`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use groupcast_protocol::Refusal;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::ask::{Ask, Format};
use super::product::Product;
use super::queries::{Queries, Query};
use super::share_key::{Scope, ShareKey, Use};
use crate::config::consumer::{ConsumerConfig, Run};

/// The latest results, within a bound of bytes and one of entries; at a bound those go that were used longest ago. In
/// memory: a restart forgets them.
pub struct QueryCache {
    queries: Arc<Queries>,
    kept: Mutex<Kept>,
    bytes_max: u64,
    entries_max: usize,
}

#[derive(Default)]
struct Kept {
    by_key: HashMap<ShareKey, Entry>,
    /// The keys in the order of their last use.
    by_use: BTreeMap<u64, ShareKey>,
    uses: u64,
    bytes: u64,
}

struct Entry {
    product: Arc<Product>,
    freshness: Freshness,
    made_at: Instant,
    used: u64,
}

/// A result that is there already.
pub(crate) struct Cached {
    pub(crate) product: Arc<Product>,
    /// How long ago it was made.
    pub(crate) age: Duration,
}

/// What a job asks for, as far as others may have asked for the same.
pub(crate) struct Asked {
    key: ShareKey,
    query: Arc<Query>,
    max_stale: Option<Duration>,
}

/// Whether a query was invalidated since a moment.
#[derive(Debug, Clone)]
pub(crate) struct Freshness {
    changes: Arc<AtomicU64>,
    seen: u64,
}

impl QueryCache {
    /// An empty cache of the results of these queries.
    pub fn new(queries: Arc<Queries>, bytes_max: usize, entries_max: usize) -> Self {
        Self { queries, kept: Mutex::default(), bytes_max: bytes_max as u64, entries_max }
    }

    /// Forgets the results of all queries with one of these tags; what is under way of them serves no ask that comes
    /// later. Answers how many queries that is.
    pub fn invalidate(&self, tags: &[String]) -> usize {
        let is_meant = |query: &&Arc<Query>| query.config.tags.iter().any(|tag| tags.contains(tag));
        let mut invalidated = 0;
        for query in self.queries.iter().filter(is_meant) {
            query.changes.fetch_add(1, Ordering::SeqCst);
            invalidated += 1;
        }
        let mut kept = self.kept.lock();
        let over = kept.by_key.iter().filter(|(_, entry)| !entry.freshness.is_fresh());
        let over: Vec<_> = over.map(|(key, _)| key.clone()).collect();
        over.iter().for_each(|key| kept.remove(key));
        invalidated
    }

    /// What was made for an identical ask, if it is as young as both the query and the ask want it.
    pub(crate) fn get(&self, asked: &Asked) -> Option<Cached> {
        let max_age = asked.query.config.cache?.0.min(asked.max_stale.unwrap_or(Duration::MAX));
        let mut kept = self.kept.lock();
        let entry = kept.by_key.get(&asked.key)?;
        let age = entry.made_at.elapsed();
        if !entry.freshness.is_fresh() || max_age.is_zero() || age > max_age {
            return None;
        }
        let product = Arc::clone(&entry.product);
        kept.touch(&asked.key);
        Some(Cached { product, age })
    }

    /// Keeps what was made, unless the query was invalidated meanwhile.
    pub(crate) fn put(&self, asked: Asked, product: Arc<Product>, freshness: Freshness) {
        if asked.query.config.cache.is_none() || !freshness.is_fresh() || product.bytes() > self.bytes_max {
            return;
        }
        let mut kept = self.kept.lock();
        kept.remove(&asked.key);
        kept.insert(asked.key, Entry { product, freshness, made_at: Instant::now(), used: 0 });
        while kept.bytes > self.bytes_max || kept.by_key.len() > self.entries_max {
            let oldest = kept.by_use.first_key_value().map(|(_, key)| key.clone());
            let Some(oldest) = oldest else { return };
            kept.remove(&oldest);
        }
    }
}

impl Kept {
    fn insert(&mut self, key: ShareKey, entry: Entry) {
        self.bytes += entry.product.bytes();
        self.by_use.insert(entry.used, key.clone());
        self.by_key.insert(key.clone(), entry);
        self.touch(&key);
    }

    fn touch(&mut self, key: &ShareKey) {
        if let Some(entry) = self.by_key.get_mut(key) {
            self.by_use.remove(&entry.used);
            self.uses += 1;
            entry.used = self.uses;
            self.by_use.insert(self.uses, key.clone());
        }
    }

    fn remove(&mut self, key: &ShareKey) {
        if let Some(entry) = self.by_key.remove(key) {
            self.by_use.remove(&entry.used);
            self.bytes -= entry.product.bytes();
        }
    }
}

impl Asked {
    /// What a message asks of a consumer; `None` where nobody can know what is the same.
    ///
    /// # Errors
    /// `unknown_query` and `bad_params`.
    pub(crate) fn new(config: &ConsumerConfig, ask: &Ask<'_>, queries: &Queries) -> Result<Option<Self>, Refusal> {
        let format = match config.run {
            Run::Query => Format::default(),
            Run::Report => ask.format()?,
            Run::Http | Run::Embedded => return Ok(None),
        };
        let question = ask.question(queries)?;
        let bound = question.query.bind(&question.params)?;
        let usage = Use { run: config.run, format, durability: config.durability };
        let key = ShareKey::new(&question, &bound, usage, Scope::Everybody);
        Ok(Some(Self { key, query: question.query, max_stale: question.max_stale }))
    }

    /// The key as jobs carry it.
    pub(crate) fn into_key(self) -> String {
        self.key.into_string()
    }

    /// Whether the query is invalidated from here on.
    pub(crate) fn freshness(&self) -> Freshness {
        let changes = Arc::clone(&self.query.changes);
        Freshness { seen: changes.load(Ordering::SeqCst), changes }
    }
}

impl Freshness {
    /// Whether it was not.
    pub(crate) fn is_fresh(&self) -> bool {
        self.changes.load(Ordering::SeqCst) == self.seen
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::config::query::{QueryConfig, SourceConfig};
    use crate::consumer::testing::{claimed, message};
    use crate::consumer::work::Outcome;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_as_old_as_it_says_and_no_older_than_it_may_be() {
        let rig = Rig::new(1000, 10);
        assert!(rig.get("kept", "").is_none());
        rig.put("kept", 10);
        rig.put("uncached", 10);
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(rig.get("kept", "").map(|cached| cached.age), Some(Duration::from_secs(20)));
        assert!(rig.get("uncached", "").is_none());
        assert!(rig.get("kept", r#","limit":1"#).is_none(), "not the same");
        assert!(rig.get("kept", r#","max_stale_ms":20000"#).is_some());
        assert!(rig.get("kept", r#","max_stale_ms":19999"#).is_none());
        assert!(rig.get("kept", r#","params":{"max_stale_ms":0}"#).is_none());
        assert!(rig.get("kept", r#","max_stale_ms":99999999"#).is_some());
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(rig.get("kept", r#","max_stale_ms":99999999"#).is_none(), "the query allows 30 s");
        rig.put("kept", 10);
        assert_eq!(rig.get("kept", "").map(|cached| cached.age), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_answered_right_after_it_was_made_when_it_has_to_be_fresh() {
        let rig = Rig::new(1000, 10);
        rig.put("kept", 10);
        assert!(rig.get("kept", r#","max_stale_ms":0"#).is_none());
    }

    #[tokio::test]
    async fn at_the_bounds_those_go_that_were_used_longest_ago() {
        let rig = Rig::new(100, 10);
        rig.put("kept", 40);
        rig.put("also", 40);
        rig.get("kept", "").expect("there");
        rig.put("third", 40);
        assert_eq!(rig.kept(), ["kept", "third"]);
        rig.put("third", 60);
        assert_eq!(rig.kept(), ["kept", "third"], "it takes its own place");
        rig.put("also", 101);
        assert_eq!(rig.kept(), ["kept", "third"], "too large to be kept at all");
        let rig = Rig::new(1000, 2);
        ["kept", "also", "third"].iter().for_each(|name| rig.put(name, 1));
        assert_eq!(rig.kept(), ["also", "third"]);
        assert_eq!(rig.cache.kept.lock().bytes, 2);
    }

    #[tokio::test]
    async fn tags_invalidate_what_is_kept_and_what_is_on_its_way() {
        let rig = Rig::new(1000, 10);
        let begun = rig.asked("kept", "").freshness();
        rig.put("kept", 10);
        rig.put("also", 10);
        let tags = |tag: &str| [tag.to_owned()];
        assert_eq!(rig.cache.invalidate(&tags("nothing")), 0);
        assert_eq!(rig.cache.invalidate(&tags("flights")), 1);
        assert_eq!(rig.kept(), ["also"]);
        assert!(!begun.is_fresh());
        let late = Arc::new(rig.product(10));
        rig.cache.put(rig.asked("kept", ""), late, begun);
        assert_eq!(rig.kept(), ["also"], "it was begun before");
        rig.put("kept", 10);
        assert_eq!(rig.kept(), ["also", "kept"]);
    }

    struct Rig {
        cache: QueryCache,
        config: ConsumerConfig,
    }

    impl Rig {
        fn new(bytes_max: usize, entries_max: usize) -> Self {
            let source: SourceConfig = toml::from_str("kind = 'sqlite'\npath = 'x.db'").expect("a source");
            let query = |(id, (name, more)): (usize, (&str, &str))| -> QueryConfig {
                let text = format!("id = {id}\nname = '{name}'\nsource = 's'\nsql = 'select 1'\n{more}");
                toml::from_str(&text).expect("a query")
            };
            let cached = "cache = '30s'";
            let names = [
                ("kept", "cache = '30s'\ntags = ['flights', 'x']"),
                ("also", cached),
                ("third", cached),
                ("uncached", ""),
            ];
            let configs: Vec<_> = names.into_iter().enumerate().map(query).collect();
            let queries = Queries::new(&[("s".to_owned(), source)].into(), &configs).expect("valid");
            let config = "name = 'q'\ngroup = 'g'\ntype = 'ask'\nrun = 'query'";
            let cache = QueryCache::new(Arc::new(queries), bytes_max, entries_max);
            Self { cache, config: toml::from_str(config).expect("a consumer") }
        }

        fn asked(&self, name: &str, more: &str) -> Asked {
            let message = message(&format!(r#"{{"type":"ask","query":"{name}"{more}}}"#));
            let ask = Ask::parse(&message).expect("an object");
            Asked::new(&self.config, &ask, &self.cache.queries).expect("good").expect("a query")
        }

        fn product(&self, bytes: usize) -> Product {
            let json = format!("\"{}\"", "x".repeat(bytes.max(2) - 2));
            let json = if bytes < 2 { "1".to_owned() } else { json };
            Product::new(Outcome::Json(Bytes::from(json)), &claimed()).expect("good")
        }

        fn put(&self, name: &str, bytes: usize) {
            let asked = self.asked(name, "");
            let freshness = asked.freshness();
            self.cache.put(asked, Arc::new(self.product(bytes)), freshness);
        }

        fn get(&self, name: &str, more: &str) -> Option<Cached> {
            self.cache.get(&self.asked(name, more))
        }

        /// The names of what is kept, without using it.
        fn kept(&self) -> Vec<&'static str> {
            let kept = self.cache.kept.lock();
            let is_kept = |name: &&str| kept.by_key.contains_key(&self.asked(name, "").key);
            ["also", "kept", "third", "uncached"].into_iter().filter(is_kept).collect()
        }
    }
}
