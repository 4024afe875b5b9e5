//! The lock that keeps a second gateway out of a data directory.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::private;
use crate::jobs::error::OpenError;

/// The data directory belongs to this process while the value lives. The system lets go of it when the process dies.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Makes the directory if need be and takes it.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another process has it.
    pub(crate) fn take(dir: &Path) -> Result<Self, OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        private::create_dir(dir).map_err(io(dir))?;
        let path = dir.join("lock");
        let file = private::file().create(true).truncate(false).write(true).open(&path).map_err(io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(dir.to_owned())),
            Err(TryLockError::Error(source)) => return Err(OpenError::Io { path, source }),
        }
        // The names of new files survive a loss of power only once their directory is synced.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io(dir))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("new");
        let lock = DirLock::take(&dir).expect("free");
        assert!(matches!(DirLock::take(&dir), Err(OpenError::InUse(path)) if path == dir));
        drop(lock);
        assert!(DirLock::take(&dir).is_ok());
    }
}
