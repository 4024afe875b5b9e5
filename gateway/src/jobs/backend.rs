//! `Backend`: a queue and the results of its jobs.

use std::path::Path;
use std::sync::Arc;

use super::counters::Counters;
use super::error::OpenError;
use super::memory::MemoryQueue;
#[cfg(feature = "postgres")]
use super::postgres::{Place, PostgresQueue, Time};
use super::queue::WorkQueue;
use super::results::ResultStore;
use super::results::memory::{BYTES_MAX, MemoryResults};
#[cfg(feature = "postgres")]
use super::results::postgres::PostgresResults;
use super::results::sqlite::SqliteResults;
use super::sqlite::SqliteQueue;
use super::sqlite::lock::DirLock;
use super::time::Clock;
#[cfg(feature = "postgres")]
use super::watch::Watch;
#[cfg(feature = "postgres")]
use crate::config::consumer::Durability;
use crate::config::consumer::JobsConfig;
#[cfg(feature = "postgres")]
use crate::config::{Role, ServerConfig};
#[cfg(feature = "postgres")]
use crate::postgres::{Address, AddressError};

/// A store of jobs with its store of results.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) queue: Arc<dyn WorkQueue>,
    pub(crate) results: Arc<dyn ResultStore>,
}

impl Backend {
    /// In the files of a data directory.
    pub(crate) fn sqlite(
        config: &JobsConfig,
        dir: &Path,
        clock: &Arc<dyn Clock>,
        counters: &Arc<Counters>,
    ) -> Result<Self, OpenError> {
        let lock = Arc::new(DirLock::take(dir)?);
        let (clock, counters) = (Arc::clone(clock), Arc::clone(counters));
        let results = SqliteResults::open(dir, Arc::clone(&clock))?;
        let queue = SqliteQueue::open(dir, lock, clock, counters, config.max_queued)?;
        Ok(Self { queue: Arc::new(queue), results: Arc::new(results) })
    }

    /// In a schema of a PostgreSQL database, for the process of this name and role.
    #[cfg(feature = "postgres")]
    pub(crate) async fn postgres(
        config: &JobsConfig,
        server: &ServerConfig,
        durability: Durability,
        clock: &Arc<dyn Clock>,
        counters: &Arc<Counters>,
        watch: &Arc<Watch>,
    ) -> Result<Self, OpenError> {
        let address = address(config)?;
        // A process that only runs jobs has nobody to tell, whatever it is called: a name that no job comes from.
        let (node, tells) = match server.role {
            Role::All | Role::Gateway => (server.node.clone(), Some(config.lease.0)),
            Role::Consumer => (String::new(), None),
        };
        let place = Place { address, schema: config.schema.clone(), node, tells, durability };
        let (time, watch) = (Time::Server(Arc::clone(clock)), Arc::clone(watch));
        let queue = PostgresQueue::open(place, time, Arc::clone(counters), config.max_queued, watch).await?;
        let results = PostgresResults::new(queue.db());
        Ok(Self { queue: Arc::new(queue), results: Arc::new(results) })
    }

    /// Whether the server of a configuration can be reached, and keeps jobs that are to survive so much. Changes nothing.
    #[cfg(feature = "postgres")]
    pub(crate) async fn look(config: &JobsConfig, durability: Durability) -> Result<(), OpenError> {
        super::postgres::look(&address(config)?, durability).await
    }

    /// In memory.
    pub(crate) fn memory(config: &JobsConfig, clock: &Arc<dyn Clock>, counters: &Arc<Counters>) -> Self {
        let queue = MemoryQueue::new(Arc::clone(clock), Arc::clone(counters), config.max_queued);
        let results = MemoryResults::new(Arc::clone(clock), BYTES_MAX);
        Self { queue: Arc::new(queue), results: Arc::new(results) }
    }
}

#[cfg(feature = "postgres")]
fn address(config: &JobsConfig) -> Result<Address, OpenError> {
    let missing = || OpenError::Address("is missing; name the server of `store = \"postgres\"`".into());
    let address = config.address().ok_or_else(missing)?;
    address.expose().parse().map_err(|error: AddressError| OpenError::Address(error.to_string()))
}
