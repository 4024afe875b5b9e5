//! Every file of `protocol/vectors` is read as what it says it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use crate::error::ErrorCode;
use crate::frame::{ClientFrame, FrameError, Request, RequestId, ServerFrame};

#[test]
fn client_frames_are_read_and_written() {
    let vectors = read("vectors", |vector| vector.direction == "client");
    let mut seen = BTreeSet::new();
    for vector in &vectors {
        let text = vector.text();
        let frame = ClientFrame::decode(&text, MESSAGE_BYTES_MAX).unwrap_or_else(|error| panic!("{vector}: {error:?}"));
        let expected = vector.reads_as.as_deref().map_or(text, compact);
        assert_eq!(frame.encode(), expected, "{vector}");
        assert_eq!(ClientFrame::decode(&expected, MESSAGE_BYTES_MAX), Ok(frame.clone()), "{vector}");
        seen.insert(match frame.request {
            Request::Ping => "Ping".to_owned(),
            Request::Command(command) => variant(&command),
        });
    }
    assert_eq!(seen.len(), 10, "every command has a file: {seen:?}");
}

#[test]
fn server_frames_are_read_and_written() {
    let vectors = read("vectors", |vector| vector.direction == "server");
    let mut seen = BTreeSet::new();
    for vector in &vectors {
        let text = vector.text();
        let frame = ServerFrame::decode(&text).unwrap_or_else(|error| panic!("{vector}: {error:?}"));
        assert_eq!(frame.encode(), text, "{vector}");
        seen.insert(variant(&frame));
    }
    assert_eq!(seen.len(), 17, "every frame has a file: {seen:?}");
}

#[test]
fn bad_frames_are_refused_with_their_code_and_id() {
    for vector in read("vectors/refused", |_| true) {
        let expected = vector.refused.as_ref().unwrap_or_else(|| panic!("{vector}: nothing is said to be refused"));
        let refused = ClientFrame::decode(&vector.text(), MESSAGE_BYTES_MAX).expect_err(&vector.to_string());
        assert_eq!(refused.refusal.code.as_str(), expected.code, "{vector}: {}", refused.refusal);
        let id = expected.id.as_deref().map(RawValue::get);
        assert_eq!(refused.id.as_ref().map(|id| id.as_json()), id, "{vector}");
    }
}

#[test]
fn a_message_has_a_bound_and_the_frame_around_it_does_not_count() {
    let text = r#"{"type":"group_send","id":1,"group":"g","message":{"type":"m"},"comment":"much longer than that"}"#;
    assert!(ClientFrame::decode(text, 12).is_ok());
    let refused = ClientFrame::decode(text, 11).expect_err("one byte too many");
    assert_eq!(refused.refusal.code, ErrorCode::TooLarge);
    assert_eq!(refused.id, Some(RequestId::from(1)));
}

#[test]
fn a_token_is_not_printed() {
    let text = r#"{"type":"authenticate","token":"secret"}"#;
    let frame = ClientFrame::decode(text, MESSAGE_BYTES_MAX).expect("valid");
    assert!(!format!("{frame:?}").contains("secret"));
}

#[test]
fn a_frame_of_a_newer_server_is_told_apart() {
    let error = ServerFrame::decode(r#"{"type":"fireworks"}"#).expect_err("unknown");
    assert!(matches!(error, FrameError::UnknownType(kind) if kind == "fireworks"));
}

const MESSAGE_BYTES_MAX: usize = 65_536;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    direction: String,
    wire: Option<Box<RawValue>>,
    text: Option<String>,
    reads_as: Option<Box<RawValue>>,
    refused: Option<ExpectedRefusal>,
    #[serde(rename = "note")]
    _note: String,
    #[serde(skip)]
    file: PathBuf,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedRefusal {
    code: String,
    id: Option<Box<RawValue>>,
}

impl Vector {
    /// The text message.
    fn text(&self) -> String {
        match (&self.wire, &self.text) {
            (Some(wire), None) => compact(wire),
            (None, Some(text)) => text.clone(),
            (None, None) | (Some(_), Some(_)) => panic!("{self}: either `wire` or `text`"),
        }
    }
}

impl std::fmt::Display for Vector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name, self.file.display())
    }
}

fn read(folder: &str, wanted: impl Fn(&Vector) -> bool) -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = std::fs::read_dir(&folder).expect("the folder of the vectors");
    let files = files.map(|entry| entry.expect("an entry").path());
    let vectors: Vec<Vector> = files
        .filter(|file| file.extension().is_some_and(|extension| extension == "json"))
        .map(|file| {
            let text = std::fs::read_to_string(&file).expect("a readable file");
            let vector: Vector =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            Vector { file, ..vector }
        })
        .filter(wanted)
        .collect();
    assert!(!vectors.is_empty(), "no vectors in {}", folder.display());
    vectors
}

/// The text without white space outside of strings. (A parsed tree would lose the order of the fields.)
fn compact(raw: &RawValue) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |c: &char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            c if !in_string => return !c.is_ascii_whitespace(),
            _ => {}
        }
        true
    };
    raw.get().chars().filter(keep).collect()
}

/// The name of an enum's variant.
fn variant(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take_while(|c| c.is_alphanumeric()).collect()
}
