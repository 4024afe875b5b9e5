//! Results in memory: for jobs that need not survive the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::{Content, FileInfo, ResultFile, ResultKey, ResultStore, RowSet, StoredResult, StoredRows, cut};
use crate::jobs::error::JobsError;
use crate::jobs::queue::Answer;
use crate::jobs::time::Clock;

/// How many bytes of results are kept; over it the oldest go, and read as `expired`.
pub(crate) const BYTES_MAX: u64 = 64 << 20;

/// Results by key, bounded in bytes.
pub(crate) struct MemoryResults {
    kept: Mutex<Kept>,
    clock: Arc<dyn Clock>,
    bytes_max: u64,
}

#[derive(Default)]
struct Kept {
    results: BTreeMap<ResultKey, (u64, Arc<Content>)>,
    by_age: VecDeque<ResultKey>,
    bytes: u64,
}

impl MemoryResults {
    /// Keeps at most `bytes_max`.
    pub(crate) fn new(clock: Arc<dyn Clock>, bytes_max: u64) -> Self {
        Self { kept: Mutex::default(), clock, bytes_max }
    }

    fn with<T>(&self, key: ResultKey, read: impl FnOnce(&Content) -> Option<T>) -> Result<Option<T>, JobsError> {
        let content = self.kept.lock().results.get(&key).map(|(_, content)| Arc::clone(content));
        Ok(content.and_then(|content| read(&content)))
    }
}

impl Kept {
    fn insert(&mut self, key: ResultKey, now: u64, content: Arc<Content>) {
        self.remove(&key);
        self.bytes += size(&content);
        self.results.insert(key, (now, content));
        self.by_age.push_back(key);
    }

    fn remove(&mut self, key: &ResultKey) {
        if let Some((_, content)) = self.results.remove(key) {
            self.bytes -= size(&content);
            self.by_age.retain(|kept| kept != key);
        }
    }
}

impl ResultStore for MemoryResults {
    fn store(&self, key: ResultKey, content: Arc<Content>, _sync: bool) -> Answer<'_, ()> {
        let mut kept = self.kept.lock();
        kept.insert(key, self.clock.wall_ms(), content);
        while kept.bytes > self.bytes_max && kept.by_age.len() > 1 {
            let oldest = kept.by_age.front().copied();
            oldest.iter().for_each(|key| kept.remove(key));
        }
        ready(Ok(())).boxed()
    }

    fn read(&self, key: ResultKey, offset: u64, limit: u64) -> Answer<'_, Option<StoredResult>> {
        ready(self.with(key, |content| Some(page(content, offset, limit)))).boxed()
    }

    fn file(&self, key: ResultKey, format: String) -> Answer<'_, Option<ResultFile>> {
        let find = |content: &Content| match content {
            Content::Files(set) => set.files.iter().find(|file| file.format == format).cloned(),
            Content::Rows(_) | Content::Json(_) => None,
        };
        ready(self.with(key, find)).boxed()
    }

    fn keys(&self, after: Option<ResultKey>, written_before_ms: u64, limit: usize) -> Answer<'_, Vec<ResultKey>> {
        let kept = self.kept.lock();
        let later = kept.results.iter().filter(|(key, _)| after.is_none_or(|after| **key > after));
        let old = later.filter(|(_, (written, _))| *written < written_before_ms);
        ready(Ok(old.map(|(key, _)| *key).take(limit).collect())).boxed()
    }

    fn remove(&self, keys: Vec<ResultKey>) -> Answer<'_, ()> {
        let mut kept = self.kept.lock();
        keys.iter().for_each(|key| kept.remove(key));
        ready(Ok(())).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}

fn size(content: &Content) -> u64 {
    match content {
        Content::Rows(set) => set.bytes(),
        Content::Json(text) => text.len() as u64,
        Content::Files(set) => set.files.iter().map(|file| file.body.len() as u64).sum(),
    }
}

fn page(content: &Content, offset: u64, limit: u64) -> StoredResult {
    match content {
        Content::Rows(set) => StoredResult::Rows(page_of_rows(set, offset, limit)),
        Content::Json(text) => StoredResult::Json(text.clone()),
        Content::Files(set) => StoredResult::Files(set.files.iter().map(file_info).collect()),
    }
}

fn file_info(file: &ResultFile) -> FileInfo {
    let bytes = file.body.len() as u64;
    FileInfo { format: file.format.clone(), media_type: file.media_type.clone(), bytes }
}

/// The rows `offset..offset + limit` of a set.
pub(crate) fn page_of_rows(set: &RowSet, offset: u64, limit: u64) -> StoredRows {
    let row_count = set.row_count();
    let from = offset.min(row_count);
    let to = from.saturating_add(limit).min(row_count);
    let mut ndjson = Vec::new();
    for chunk in &set.chunks {
        let (first, last) = (chunk.first_row.max(from), (chunk.first_row + chunk.rows).min(to));
        if first < last {
            ndjson.extend_from_slice(&cut(&chunk.ndjson, first - chunk.first_row, last - chunk.first_row));
        }
    }
    let (columns, truncated) = (set.columns.clone(), set.truncated);
    StoredRows { columns, offset: from, rows: to - from, ndjson: ndjson.into(), row_count, truncated }
}
