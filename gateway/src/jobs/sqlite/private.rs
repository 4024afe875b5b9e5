//! Files and directories for nobody but the user that the gateway runs as, whatever its umask: messages lie there in the
//! clear. What is there already keeps the mode that somebody gave it.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Makes a directory, and those above it, unless they are there.
pub(super) fn create_dir(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)
}

/// Makes an empty file, unless it is there. What SQLite puts beside a database (`-wal`, `-shm`) gets the mode of it.
pub(super) fn create_file(path: &Path) -> io::Result<()> {
    match file().create_new(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// How a file is opened that may have to be made.
pub(super) fn file() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use crate::jobs::sqlite::lock::DirLock;
    use crate::jobs::sqlite::open::open_writer;

    use super::*;

    #[test]
    fn what_is_made_is_for_its_user_alone() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = home.path().join("above/data");
        let _lock = DirLock::take(&dir).expect("free");
        let conn = open_writer(&dir.join("x.db"), &["create table a (x integer) strict"]).expect("made");
        conn.execute("insert into a values (1)", []).expect("written");
        for made in ["above", "above/data"] {
            assert_eq!(mode(&home.path().join(made)), 0o700, "{made}");
        }
        for made in ["lock", "x.db", "x.db-wal", "x.db-shm"] {
            assert_eq!(mode(&dir.join(made)), 0o600, "{made}");
        }
    }

    #[test]
    fn what_is_there_keeps_its_mode() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("x.db");
        fs::write(&path, "").expect("written");
        for (there, mode) in [(home.path(), 0o750), (&path, 0o640)] {
            fs::set_permissions(there, Permissions::from_mode(mode)).expect("ours");
        }
        let _lock = DirLock::take(home.path()).expect("free");
        drop(open_writer(&path, &[]).expect("open"));
        assert_eq!((mode(home.path()), mode(&path)), (0o750, 0o640));
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }
}
