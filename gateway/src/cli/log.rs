//! The log: to standard error, for a person or as JSON.
//!
//! With `json` each line is one object:
//!
//! ```text
//! {"timestamp":"2026-11-27T09:00:00.000000Z","level":"INFO","message":"listening","address":"127.0.0.1:8000","target":"groupcast::server"}
//! ```
//!
//! A line that is written while a request is served, a connection driven or a job done says which: `crate::telemetry`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::CliError;
use crate::config::server::LogFormat;
use crate::telemetry::{InScope, Shape};

/// Starts it, once for each process; a second one (in tests) keeps the first.
///
/// # Errors
/// When the filter is none.
pub(super) fn start(filter: &str, format: LogFormat) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(filter).map_err(|e| CliError::Usage(format!("[server] log: {e}")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Human => {
            // Colours are for a person's terminal, not for a file.
            let colours = std::io::stderr().is_terminal();
            let log = log.with_ansi(colours);
            let log = log.map_event_format(|format| InScope::new(format.with_ansi(colours), Shape::Text));
            drop(log.try_init());
        }
        LogFormat::Json => {
            let json = log.json().flatten_event(true).with_current_span(false).with_span_list(false);
            let json = json.map_event_format(|format| InScope::new(format, Shape::Object));
            if json.try_init().is_ok() {
                // A panic is told in lines of its own otherwise, which are no JSON.
                std::panic::set_hook(Box::new(|panic| tracing::error!(panic = %panic, "a thread panicked")));
            }
        }
    }
    Ok(())
}
