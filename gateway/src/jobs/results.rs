//! Results: what came out of jobs, kept apart from the jobs themselves.

pub mod cells;
pub(crate) mod memory;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
pub(crate) mod sqlite;

use std::sync::Arc;

use bytes::Bytes;
use groupcast_protocol::JobId;
use sha2::{Digest, Sha256};

use super::queue::Answer;
use super::record::ResultInfo;

/// Where a result is kept: it is written under the attempt that made it before the job's state says so, and two
/// attempts never write to the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResultKey {
    /// The job.
    pub job: JobId,
    /// Its attempt.
    pub attempt: u32,
    /// The token of that attempt's lease.
    pub token: u64,
}

impl ResultKey {
    /// The key in 28 bytes, in the order of keys.
    pub(crate) fn to_bytes(self) -> [u8; 28] {
        let mut bytes = [0; 28];
        bytes[..16].copy_from_slice(&self.job.to_bytes());
        bytes[16..20].copy_from_slice(&self.attempt.to_be_bytes());
        bytes[20..].copy_from_slice(&self.token.to_be_bytes());
        bytes
    }

    /// The key of 28 bytes; `None` of any other number.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (job, rest) = bytes.split_first_chunk()?;
        let (attempt, token) = rest.split_first_chunk()?;
        let (attempt, token) = (u32::from_be_bytes(*attempt), u64::from_be_bytes(token.try_into().ok()?));
        Some(Self { job: JobId::from_bytes(*job), attempt, token })
    }
}

/// What came out of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Rows, as of a query.
    Rows(RowSet),
    /// One JSON value.
    Json(Bytes),
    /// Files, as of a report.
    Files(FileSet),
}

/// Rows as JSON text: one array a line, in chunks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowSet {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows, in order, none missing.
    pub chunks: Vec<Chunk>,
    /// Whether a budget cut them.
    pub truncated: bool,
}

/// Some rows in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The position of its first row, from 0.
    pub first_row: u64,
    /// How many rows.
    pub rows: u64,
    /// The rows: `[1,"JFK"]\n[2,"LGA"]\n`.
    pub ndjson: Bytes,
}

/// Files, the one that is read by default first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSet {
    /// The files; at least one.
    pub files: Vec<ResultFile>,
    /// How many rows they show, where that means something.
    pub rows: Option<u64>,
    /// Whether a budget cut them.
    pub truncated: bool,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultFile {
    /// What it is asked for by, such as `html`: `/v1/jobs/{id}/result?format=html`.
    pub format: String,
    /// Its media type, such as `text/html; charset=utf-8`.
    pub media_type: String,
    /// Its content.
    pub body: Bytes,
}

/// A stored result, or a page of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredResult {
    /// A page of rows.
    Rows(StoredRows),
    /// One JSON value.
    Json(Bytes),
    /// The names of the files; `Jobs::file` reads one.
    Files(Vec<FileInfo>),
}

/// A page of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRows {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The position of the page's first row, from 0.
    pub offset: u64,
    /// How many rows the page has.
    pub rows: u64,
    /// The rows, one JSON array a line.
    pub ndjson: Bytes,
    /// How many rows the whole result has.
    pub row_count: u64,
    /// Whether a budget cut the result.
    pub truncated: bool,
}

/// A file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// What it is asked for by.
    pub format: String,
    /// Its media type.
    pub media_type: String,
    /// Its size.
    pub bytes: u64,
}

/// A store of results.
///
/// `store` answers when the result is safe at the level asked; a second `store` under the same key replaces the first.
/// Nobody may read what no job refers to, so an orphan is only waste, which `keys` and `remove` sweep.
pub(crate) trait ResultStore: Send + Sync + 'static {
    /// Writes a result; with `sync` so that it survives the loss of power.
    fn store(&self, key: ResultKey, content: Arc<Content>, sync: bool) -> Answer<'_, ()>;

    /// Reads a result; of rows at most `limit` from `offset`.
    fn read(&self, key: ResultKey, offset: u64, limit: u64) -> Answer<'_, Option<StoredResult>>;

    /// Reads a file.
    fn file(&self, key: ResultKey, format: String) -> Answer<'_, Option<ResultFile>>;

    /// Keys after one, in order, of results written before a time.
    fn keys(&self, after: Option<ResultKey>, written_before_ms: u64, limit: usize) -> Answer<'_, Vec<ResultKey>>;

    /// Removes results.
    fn remove(&self, keys: Vec<ResultKey>) -> Answer<'_, ()>;

    /// Stops the store's threads after what they have been given.
    fn close(&self) -> futures_util::future::BoxFuture<'_, ()>;
}

impl RowSet {
    /// How many rows there are.
    pub fn row_count(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.rows).sum()
    }

    /// SHA-256 of the rows as text, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        self.chunks.iter().for_each(|chunk| hash.update(&chunk.ndjson));
        hex(&hash.finalize())
    }

    /// How many bytes the rows have as text.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.ndjson.len() as u64).sum()
    }
}

impl Content {
    /// What the job's record says about it.
    pub fn info(&self, job: JobId) -> ResultInfo {
        let url = self.url(job);
        match self {
            Self::Rows(set) => {
                let (rows, digest) = (Some(set.row_count()), set.digest());
                ResultInfo { rows, bytes: set.bytes(), truncated: set.truncated, digest, url, age_ms: None }
            }
            Self::Json(text) => {
                let digest = hex(&Sha256::digest(text));
                ResultInfo { rows: None, bytes: text.len() as u64, truncated: false, digest, url, age_ms: None }
            }
            Self::Files(set) => {
                let digest = set.files.first().map(|file| hex(&Sha256::digest(&file.body))).unwrap_or_default();
                let bytes = set.files.iter().map(|file| file.body.len() as u64).sum();
                ResultInfo { rows: set.rows, bytes, truncated: set.truncated, digest, url, age_ms: None }
            }
        }
    }
}

impl Content {
    /// Where a job's result is read.
    pub fn url(&self, job: JobId) -> String {
        match self {
            Self::Rows(_) | Self::Json(_) => format!("/v1/jobs/{job}/result"),
            Self::Files(set) => {
                let format = set.files.first().map_or("", |file| &file.format);
                format!("/v1/jobs/{job}/result?format={format}")
            }
        }
    }
}

/// Cuts rows `from..to` (counted from the chunk's first) out of a chunk.
pub(crate) fn cut(ndjson: &Bytes, from: u64, to: u64) -> Bytes {
    let mut start = 0;
    let mut row = 0;
    for (at, _) in ndjson.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        row += 1;
        if row == from {
            start = at + 1;
        }
        if row == to {
            return ndjson.slice(start..=at);
        }
    }
    ndjson.slice(start..)
}

/// Bytes as lower-case hexadecimal text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)] as char, DIGITS[usize::from(b & 15)] as char]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_at_line_ends() {
        let lines = Bytes::from_static(b"[1]\n[2]\n[3]\n");
        for (from, to, expected) in
            [(0, 3, "[1]\n[2]\n[3]\n"), (1, 2, "[2]\n"), (0, 1, "[1]\n"), (2, 3, "[3]\n"), (2, 9, "[3]\n")]
        {
            assert_eq!(cut(&lines, from, to), expected.as_bytes(), "{from}..{to}");
        }
    }

    #[test]
    fn keys_read_back_in_their_order() {
        let keys = [(1, 1, 9), (1, 2, 0), (256, 1, 1), (256, 1, 256)].map(|(ms, attempt, token)| ResultKey {
            job: JobId::new(ms, 1),
            attempt,
            token,
        });
        assert_eq!(keys.map(|key| ResultKey::from_bytes(&key.to_bytes())), keys.map(Some));
        assert!(keys.map(ResultKey::to_bytes).is_sorted());
        assert_eq!(ResultKey::from_bytes(&[0; 27]), None);
        assert_eq!(ResultKey::from_bytes(&[0; 29]), None);
    }

    #[test]
    fn a_digest_is_sha_256_in_hexadecimal() {
        let info = Content::Json(Bytes::from_static(b"hello world")).info(JobId::new(1, 1));
        assert_eq!(info.digest, "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9");
    }
}
