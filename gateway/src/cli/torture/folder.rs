//! `Folder`: the fresh folder of a run, with the configuration of its gateways. What exists is never touched.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::Plan;
use super::work::QUERIES;
use crate::cli::CliError;
use crate::config::consumer::Durability;

/// The group that is asked, and that hears the events.
pub(super) const GROUP: &str = "torture";

/// Jobs that run at once.
pub(super) const CONCURRENCY: u64 = 4;

/// How often a job may be tried: so often that kills alone never end one before its third crash.
pub(super) const ATTEMPTS_MAX: u64 = 10;

/// A folder that is removed with its owner, unless it is to be kept.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    /// Makes it and writes the configuration.
    ///
    /// # Errors
    /// When the place takes no folder.
    pub(super) fn new(parent: &Path, plan: &Plan) -> Result<Self, CliError> {
        let parent = parent.canonicalize().map_err(|error| unusable(parent, &error))?;
        let path = parent.join(format!("groupcast-torture-{:08x}", crate::clock::random() as u32));
        fs::create_dir(&path).map_err(|error| unusable(&path, &error))?;
        let folder = Self { path, keep: false };
        let source = folder.path.join("source.db");
        let made = Connection::open(&source).and_then(|conn| conn.execute_batch("create table empty (x integer)"));
        made.map_err(|error| CliError::Failed(format!("`{}` cannot be made: {error}", source.display())))?;
        fs::write(folder.config(), config(plan)).map_err(|error| unusable(&folder.config(), &error))?;
        Ok(folder)
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its `groupcast.toml`.
    pub(super) fn config(&self) -> PathBuf {
        self.path.join("groupcast.toml")
    }

    /// Where the gateway keeps its jobs.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// What the gateways said.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("gateway.log")
    }

    /// Leaves it where it is.
    pub(super) fn keep(mut self) -> PathBuf {
        self.keep = true;
        self.path.clone()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // It is ours; what cannot be removed stays for its owner to see.
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> CliError {
    let path = path.display();
    CliError::Failed(format!("`{path}` cannot be used: {error}; name a folder of yours with --data-dir"))
}

fn config(plan: &Plan) -> String {
    let durability = match plan.durability {
        Durability::Memory => "memory",
        Durability::Os => "os",
        Durability::Disk => "disk",
    };
    format!(
        r#"[server]
listen = "127.0.0.1:0"
data_dir = "data"
log = "warn"

[jobs]
retry_base = "20ms"
retry_max = "200ms"
max_queued = 10000000

[source.none]
kind = "sqlite"
path = "source.db"

[[consumer]]
name = "torture"
group = "{GROUP}"
type = "torture"
run = "query"
durability = "{durability}"
concurrency = {CONCURRENCY}
max_attempts = {ATTEMPTS_MAX}
{QUERIES}"#
    )
}
