//! The result of a job, in the form that the client asks for: by `?format=`, else by `Accept`.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use groupcast_protocol::{ErrorCode, JobId, Refusal};
use http::header::{AGE, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Uri};
use serde::Serialize;
use utoipa::ToSchema;

use super::accept;
use super::access::{self, Asked};
use super::params::Params;
use super::path::OfJob;
use super::problem::Problem;
use super::rows::Rows;
use crate::app::App;
use crate::clock;
use crate::jobs::{FileInfo, ResultFile, StoredResult, StoredRows};

/// The forms of rows: the name for `?format=`, and the media type. The first is the default.
const ROW_FORMATS: &[(&str, &str)] = &[
    ("json", "application/json"),
    ("ndjson", "application/x-ndjson"),
    ("csv", "text/csv; charset=utf-8"),
    #[cfg(feature = "arrow")]
    ("arrow", super::rows::arrow::MEDIA_TYPE),
];
const JSON_FORMATS: &[(&str, &str)] = &[("json", "application/json")];

/// A report is a page of its own: it may show itself, and do nothing else with this origin.
const REPORT_POLICY: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// Rows as JSON.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ResultRows {
    /// The names of the columns.
    columns: Vec<String>,
    /// The rows asked for, each with a value for each column.
    rows: Vec<Vec<serde_json::Value>>,
    /// How many rows the whole result has.
    row_count: u64,
    /// Whether a limit of the query cut the result.
    truncated: bool,
}

/// Reads the result of a job
///
/// Rows come as JSON, as NDJSON (an object a line) or as CSV, and where the gateway was built with it as an Arrow IPC stream
/// (`?format=arrow`); a report as the files it made.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/result",
    tag = "jobs",
    operation_id = "result",
    params(
        ("id" = String, Path, description = "The job", example = "01JD8ZJ4M5E8RAX0V4C9QW2N7K"),
        ("format" = Option<String>, Query, description = "`json`, `ndjson` or `csv`; of a report `html` or `csv`. Wins over `Accept`"),
        ("offset" = Option<u64>, Query, description = "Leaves out so many rows; default 0"),
        ("limit" = Option<u64>, Query, description = "At most so many rows; default all"),
    ),
    responses(
        (status = 200, description = "The result", content(
            (ResultRows = "application/json"),
            (String = "application/x-ndjson"),
            (String = "text/csv"),
            (String = "text/html"),
        ), headers(("Age" = u64, description = "Seconds since it was made, if it came from the cache (`[[query]] cache`)"))),
        (status = 400, description = "`bad_request`"),
        (status = 404, description = "`not_found`: no such job, or it ended without a result"),
        (status = 406, description = "`not_acceptable`"),
        (status = 409, description = "`not_ready`"),
        (status = 410, description = "`expired`"),
        (status = 503, description = "`unavailable`, with `Retry-After`"),
    )
)]
pub(super) async fn read(
    State(app): State<App>,
    Asked(by): Asked,
    OfJob(id): OfJob,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let params = Params::parse(&uri, &["format", "offset", "limit"])?;
    let offset = params.whole("offset", 0..=u64::MAX)?.unwrap_or(0);
    let limit = params.whole("limit", 1..=u64::MAX)?.unwrap_or(u64::MAX);
    let format = params.text("format");
    access::check_job(&app, &by, id).await?;
    let mut response = match app.jobs.read_result(id, offset, limit).await.map_err(Refusal::from)? {
        StoredResult::Rows(rows) => render_rows(id, &rows, choose(format, &headers, ROW_FORMATS)?)?,
        StoredResult::Json(json) => {
            choose(format, &headers, JSON_FORMATS)?;
            answer("application/json", json)
        }
        StoredResult::Files(files) => {
            let chosen = choose(format, &headers, &formats(&files))?.to_owned();
            let file = app.jobs.file(id, &chosen).await.map_err(Refusal::from)?;
            let gone = || Problem::new(ErrorCode::Expired, format!("the result of job {id} is no longer kept"));
            render_file(id, file.ok_or_else(gone)?)
        }
    };
    if let Some(seconds) = age(&app, id).await? {
        response.headers_mut().insert(AGE, HeaderValue::from(seconds));
    }
    Ok(response)
}

/// Seconds since a result was made that came from the cache (RFC 9111, section 5.1). One that was made for its job is not
/// an old answer to a new question, however long it is kept.
async fn age(app: &App, id: JobId) -> Result<Option<u64>, Problem> {
    let record = app.jobs.get(id).await.map_err(Refusal::from)?;
    Ok(record.and_then(|record| {
        let made_at = record.finished_at?.saturating_sub(record.result?.age_ms?);
        Some(clock::now_ms().saturating_sub(made_at) / 1000)
    }))
}

fn formats(files: &[FileInfo]) -> Vec<(&str, &str)> {
    files.iter().map(|file| (file.format.as_str(), file.media_type.as_str())).collect()
}

fn choose<'a>(asked: Option<&str>, headers: &HeaderMap, formats: &[(&'a str, &'a str)]) -> Result<&'a str, Problem> {
    let names: Vec<&str> = formats.iter().map(|(name, _)| *name).collect();
    let refused = |what: String| {
        let detail = format!("{what}; this result can be read as {} (`?format=` or `Accept`)", names.join(", "));
        Problem::new(ErrorCode::NotAcceptable, detail)
    };
    if let Some(asked) = asked {
        let shown: String = asked.chars().take(20).collect();
        return names.iter().copied().find(|name| *name == asked).ok_or_else(|| refused(format!("no {shown:?} here")));
    }
    let offers: Vec<&str> = formats.iter().map(|(_, media_type)| *media_type).collect();
    accept::best(headers, &offers).map(|at| names[at]).ok_or_else(|| refused("nothing that `Accept` asks for".into()))
}

fn render_rows(id: JobId, stored: &StoredRows, format: &str) -> Result<Response, Problem> {
    let rows = Rows {
        columns: &stored.columns,
        ndjson: &stored.ndjson,
        row_count: stored.row_count,
        truncated: stored.truncated,
    };
    let damaged = |e: super::rows::DamagedRow| Problem::new(ErrorCode::Expired, e.to_string());
    match format {
        "csv" => {
            let mut response = answer("text/csv; charset=utf-8", rows.csv().map_err(damaged)?);
            response.headers_mut().insert(CONTENT_DISPOSITION, attachment(id, "csv"));
            Ok(response)
        }
        "ndjson" => Ok(answer("application/x-ndjson", rows.ndjson_objects().map_err(damaged)?)),
        #[cfg(feature = "arrow")]
        "arrow" => {
            let mut response = answer(super::rows::arrow::MEDIA_TYPE, rows.arrow().map_err(damaged)?);
            response.headers_mut().insert(CONTENT_DISPOSITION, attachment(id, "arrows"));
            Ok(response)
        }
        _ => Ok(answer("application/json", rows.json())),
    }
}

fn render_file(id: JobId, file: ResultFile) -> Response {
    let mut response = answer(&file.media_type, file.body);
    if file.media_type.starts_with("text/html") {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(REPORT_POLICY));
    } else {
        response.headers_mut().insert(CONTENT_DISPOSITION, attachment(id, &file.format));
    }
    response
}

fn attachment(id: JobId, format: &str) -> HeaderValue {
    let name: String = format.chars().filter(char::is_ascii_alphanumeric).collect();
    HeaderValue::try_from(format!("attachment; filename=\"{id}.{name}\"")).expect("letters and digits are ASCII")
}

fn answer(media_type: &str, body: Bytes) -> Response {
    let mut response = Body::from(body).into_response();
    let headers = response.headers_mut();
    let media_type = HeaderValue::from_str(media_type);
    headers.insert(CONTENT_TYPE, media_type.unwrap_or(HeaderValue::from_static("application/octet-stream")));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
