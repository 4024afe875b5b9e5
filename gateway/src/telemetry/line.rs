//! `InScope`: a line of the log with the names of what its task is doing at its end.
//!
//! ```text
//! 2026-11-27T09:00:00.000000Z  WARN groupcast::dispatch: work was stored and could not be shown to its group request=01JD8ZJ4M5E8RAX0V4C9QW2N7K
//! {"timestamp":"2026-11-27T09:00:00.000000Z","level":"WARN","message":"…","target":"groupcast::dispatch","request":"01JD8ZJ4M5E8RAX0V4C9QW2N7K"}
//! ```

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::Scope;

/// How a line is written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// `name=value` behind it.
    Text,
    /// A field more of its object.
    Object,
}

/// Writes what another format writes, and behind it whose work it is.
pub(crate) struct InScope<F> {
    format: F,
    shape: Shape,
}

impl<F> InScope<F> {
    /// `format` writes lines of this shape.
    pub(crate) fn new(format: F, shape: Shape) -> Self {
        Self { format, shape }
    }
}

impl<S, N, F> FormatEvent<S, N> for InScope<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut names = Vec::new();
        Scope::tell(|field, name| names.push(self.shape.written(field, name)));
        if names.is_empty() {
            return self.format.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        for (start, name) in names {
            // The line may say so itself.
            if !line.contains(&start) {
                line = self.shape.joined(&line, &(start + &name));
            }
        }
        writer.write_str(&line)
    }
}

impl Shape {
    /// A field in two parts, the first of which is its name. Nothing has to be escaped in names of requests, connections and
    /// jobs.
    fn written(self, field: &str, name: &dyn fmt::Display) -> (String, String) {
        match self {
            Self::Text => (format!(" {field}="), name.to_string()),
            Self::Object => (format!(",\"{field}\":"), format!("\"{name}\"")),
        }
    }

    fn joined(self, line: &str, field: &str) -> String {
        let end = match self {
            Self::Text => "\n",
            Self::Object => "}\n",
        };
        match line.strip_suffix(end) {
            Some(begun) => format!("{begun}{field}{end}"),
            None => line.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use groupcast_protocol::Id;
    use parking_lot::Mutex;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).expect("UTF-8")
        }
    }

    fn say() {
        tracing::warn!(code = 7, "outside");
        Scope::job(Id::from_bytes([1; 16])).run_now(|| {
            tracing::warn!(code = 8, "within");
            tracing::warn!(job = "another", "within");
        });
    }

    #[test]
    fn a_line_for_people_ends_with_the_name() {
        let kept = Kept::default();
        let log = tracing_subscriber::fmt().with_writer(kept.clone());
        let log = log.map_event_format(|format| InScope::new(format.with_ansi(false), Shape::Text));
        tracing::subscriber::with_default(log.finish(), say);
        let id = Id::from_bytes([1; 16]);
        let text = kept.text();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].ends_with("outside code=7"), "{text}");
        assert!(lines[1].ends_with(&format!("within code=8 job={id}")), "{text}");
        assert!(lines[2].ends_with("within job=\"another\""), "{text}");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn an_object_has_a_field_more() {
        let kept = Kept::default();
        let log = tracing_subscriber::fmt().with_writer(kept.clone()).json().flatten_event(true);
        let log = log.map_event_format(|format| InScope::new(format, Shape::Object));
        tracing::subscriber::with_default(log.finish(), say);
        let text = kept.text();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((&lines[0]["code"], &lines[0]["job"]), (&7.into(), &serde_json::Value::Null));
        assert_eq!((&lines[1]["code"], &lines[1]["job"]), (&8.into(), &Id::from_bytes([1; 16]).to_string().into()));
        assert_eq!(lines[2]["job"], "another");
    }
}
