//! `run = "report"`: the rows of a named query as a CSV file and as a page to read.

mod chart;
mod html;

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use self::html::Page;
use super::ask::{Ask, Format, Question};
use super::context::JobContext;
use super::params::SqlValue;
use super::queries::Queries;
use super::query::{question, rows};
use super::source::Sources;
use super::work::{Consumer, Failure, Outcome};
use crate::clock;
use crate::jobs::results::cells::{Cell, cells, csv_line};
use crate::jobs::results::{FileSet, ResultFile, RowSet};

/// Between two looks at whether to stop, and two notes of progress.
const STEP_ROWS: u64 = 200;

/// Makes reports.
pub(crate) struct ReportConsumer {
    pub(crate) queries: Arc<Queries>,
    pub(crate) sources: Arc<Sources>,
}

impl Consumer for ReportConsumer {
    fn run<'a>(&'a self, job: &'a JobContext) -> BoxFuture<'a, Result<Outcome, Failure>> {
        async move {
            let question = question(job, &self.queries)?;
            let format = Ask::parse(job.message()).and_then(|ask| ask.format());
            let format = format.map_err(|refusal| Failure::permanent(refusal.code.as_str(), refusal.message))?;
            let rows = rows(&question, job, &self.sources).await?;
            let about = About::new(&question)?;
            job.compute(move |job| make(&about, &rows, format, job)).await?.map(Outcome::Files)
        }
        .boxed()
    }
}

/// What a report says about itself.
pub(crate) struct About {
    title: String,
    query: String,
    params: Vec<(String, String)>,
    made_at: String,
}

impl About {
    fn new(question: &Question) -> Result<Self, Failure> {
        let config = &question.query.config;
        let bound = question.query.bind(&question.params);
        let bound = bound.map_err(|refusal| Failure::permanent(refusal.code.as_str(), refusal.message))?;
        let shown = |value: SqlValue| match value {
            SqlValue::Text(text) => text,
            SqlValue::Integer(n) => n.to_string(),
            SqlValue::Real(n) => n.to_string(),
        };
        let title = if config.title.is_empty() { &config.name } else { &config.title };
        Ok(Self {
            title: title.clone(),
            query: config.name.clone(),
            params: bound.into_iter().map(|(name, value)| (name, shown(value))).collect(),
            made_at: clock::rfc3339(clock::now_ms()),
        })
    }
}

/// Both files, in one pass over the rows.
fn make(about: &About, rows: &RowSet, format: Format, job: &JobContext) -> Result<FileSet, Failure> {
    let total = rows.row_count();
    let mut csv = Vec::with_capacity(rows.bytes() as usize);
    csv_line(&mut csv, rows.columns.iter().map(String::as_str));
    let mut page = Page::new(about, rows);
    let lines = rows.chunks.iter().flat_map(|chunk| chunk.ndjson.split(|byte| *byte == b'\n'));
    for (at, line) in (0_u64..).zip(lines.filter(|line| !line.is_empty())) {
        if at % STEP_ROWS == 0 {
            job.progress(at, Some(total), "rows");
            if job.is_cancelled() {
                return Err(Failure::timeout("the report was stopped before it was complete"));
            }
        }
        let cells = cells(line);
        csv_line(&mut csv, cells.iter().map(Cell::text));
        page.row(&cells);
    }
    job.progress(total, Some(total), "rows");
    let html = file("html", "text/html; charset=utf-8", page.finish().into());
    let csv = file("csv", "text/csv; charset=utf-8; header=present", csv.into());
    let files = match format {
        Format::Html => vec![html, csv],
        Format::Csv => vec![csv, html],
    };
    Ok(FileSet { files, rows: Some(total), truncated: rows.truncated })
}

fn file(format: &str, media_type: &str, body: Bytes) -> ResultFile {
    ResultFile { format: format.to_owned(), media_type: media_type.to_owned(), body }
}

/// Adds text to HTML so that it stays text, in content and in quoted attributes.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Controls have no place in HTML.
            c if c.is_control() && !matches!(c, '\n' | '\t') => {
                write!(out, "\\u{{{:x}}}", u32::from(c)).expect("a string grows");
            }
            c => out.push(c),
        }
    }
}
