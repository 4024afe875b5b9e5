//! `Folder`: the fresh folder of a run, with the configuration of its gateways. What exists is never touched.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::cli::CliError;

/// A folder that is removed with its owner, unless it is to be kept.
#[derive(Debug)]
pub(in crate::cli) struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    /// Makes `NAME-` and a random number, and writes a configuration, whose data are in `data` and whose source in `source.db`.
    ///
    /// # Errors
    /// When the place takes no folder.
    pub(in crate::cli) fn new(parent: &Path, name: &str, config: &str) -> Result<Self, CliError> {
        let parent = parent.canonicalize().map_err(|error| unusable(parent, &error))?;
        let path = parent.join(format!("{name}-{:08x}", crate::clock::random() as u32));
        fs::create_dir(&path).map_err(|error| unusable(&path, &error))?;
        let folder = Self { path, keep: false };
        let source = folder.path.join("source.db");
        let made = Connection::open(&source).and_then(|conn| conn.execute_batch("create table empty (x integer)"));
        made.map_err(|error| CliError::Failed(format!("`{}` cannot be made: {error}", source.display())))?;
        fs::write(folder.config(), config).map_err(|error| unusable(&folder.config(), &error))?;
        Ok(folder)
    }

    /// The folder.
    pub(in crate::cli) fn path(&self) -> &Path {
        &self.path
    }

    /// Its `groupcast.toml`.
    pub(in crate::cli) fn config(&self) -> PathBuf {
        self.path.join("groupcast.toml")
    }

    /// Where the gateway keeps its jobs.
    pub(in crate::cli) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// What the gateways said.
    pub(in crate::cli) fn log(&self) -> PathBuf {
        self.path.join("gateway.log")
    }

    /// Leaves it where it is.
    pub(in crate::cli) fn keep(mut self) -> PathBuf {
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
