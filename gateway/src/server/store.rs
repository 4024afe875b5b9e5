//! Opens the store of jobs that a configuration needs.

use super::StartError;
use crate::config::{CatchUp, Config, Durability, StoreKind};
use crate::jobs::Jobs;

/// Without consumers nothing is ever stored, and without any that is to survive nothing is written: a gateway that only
/// carries messages leaves no files behind, unless ticks of schedules are to be remembered.
pub(super) async fn open(config: &Config) -> Result<Jobs, StartError> {
    let catches_up = config.schedule.iter().any(|schedule| schedule.catch_up == CatchUp::One);
    let is_shared = config.jobs.store == StoreKind::Postgres && !config.schedule.is_empty();
    let durability = config.durability();
    if !catches_up && !is_shared && durability == Durability::Memory {
        return Ok(Jobs::in_memory(&config.jobs));
    }
    let opened = match config.jobs.store {
        StoreKind::Sqlite => Jobs::open(&config.jobs, &config.server.data_dir),
        StoreKind::Postgres => Jobs::connect(&config.jobs, &config.server, durability).await,
    };
    opened.map_err(StartError::Jobs)
}
