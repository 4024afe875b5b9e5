//! What the frames of the server mean for a reader: what is printed, where it is, and when it ends.

use std::collections::HashMap;
use std::time::Duration;

use groupcast_protocol::envelope::PositionError;
use groupcast_protocol::{GroupName, Position};
use serde_json::{Map, Value, json};

use super::super::CliError;

/// A reader of groups or of a live query, across connections.
#[derive(Debug)]
pub(super) struct Follow {
    wanted: Wanted,
    /// What was seen last, for groups that keep history.
    positions: HashMap<String, Position>,
    left: Option<u64>,
    was_subscribed: bool,
    progress: bool,
}

/// What is read.
#[derive(Debug)]
pub(super) enum Wanted {
    Groups(Vec<GroupName>),
    /// A live query by its name, with its parameters. Each connection begins with all its rows.
    Query(String, Map<String, Value>),
}

/// What to do after a frame.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing.
    Ignore,
    /// Print the frame.
    Print,
    /// Tell the person.
    Note(String),
    /// The server is about to close; come back after this time.
    Leaving(Duration),
    /// Connect again.
    Again(String),
    /// End, with this error.
    Fail(String),
}

impl Follow {
    pub(super) fn new(wanted: Wanted, left: Option<u64>) -> Self {
        Self { wanted, positions: HashMap::new(), left, was_subscribed: false, progress: false }
    }

    /// Begins after `EPOCH:OFFSET`.
    pub(super) fn begin_after(&mut self, text: &str) -> Result<(), CliError> {
        let Wanted::Groups(groups) = &self.wanted else {
            return Err(CliError::Usage("--after is the position of a group; a query has none".to_owned()));
        };
        let [group] = groups.as_slice() else {
            return Err(CliError::Usage("--after is the position of one group; name only that one".to_owned()));
        };
        let position = text.parse().map_err(|error: PositionError| CliError::Usage(format!("--after: {error}")))?;
        self.positions.insert(group.to_string(), position);
        Ok(())
    }

    /// The commands that a fresh connection begins with.
    pub(super) fn commands(&self) -> Vec<String> {
        let groups = match &self.wanted {
            Wanted::Groups(groups) => groups,
            Wanted::Query(query, params) => {
                return vec![json!({"type": "subscribe", "id": 0, "query": query, "params": params}).to_string()];
            }
        };
        let command = |(id, group): (usize, &GroupName)| match self.positions.get(group.as_str()) {
            Some(after) => json!({"type": "subscribe", "id": id, "group": group, "after": after}),
            None => json!({"type": "subscribe", "id": id, "group": group}),
        };
        groups.iter().enumerate().map(command).map(|c| c.to_string()).collect()
    }

    /// Takes a frame in.
    pub(super) fn step(&mut self, text: &str) -> Step {
        let Ok(frame) = serde_json::from_str::<Value>(text) else {
            return Step::Fail("the server sent a frame that is not JSON; is there a gateway at --url?".to_owned());
        };
        let field = |name: &str| frame.get(name).and_then(Value::as_str).unwrap_or_default();
        match field("type") {
            "welcome" | "pong" | "unsubscribed" => Step::Ignore,
            "subscribed" if frame.get("query").is_some() => self.subscribed(&frame, field("query")),
            "subscribed" => self.subscribed(&frame, field("group")),
            "error" => {
                let told = format!("refused with {}: {}", field("code"), field("message"));
                if frame.get("retriable") == Some(&Value::Bool(true)) { Step::Again(told) } else { Step::Fail(told) }
            }
            "closing" => {
                let ms = frame.get("retry_after_ms").and_then(Value::as_u64).unwrap_or(0);
                Step::Leaving(Duration::from_millis(ms))
            }
            _ => {
                self.remember(&frame, field("group"));
                self.left = self.left.map(|left| left.saturating_sub(1));
                Step::Print
            }
        }
    }

    fn subscribed(&mut self, frame: &Value, group: &str) -> Step {
        (self.was_subscribed, self.progress) = (true, true);
        let recovered = frame.get("recovered").and_then(Value::as_bool);
        if recovered != Some(true) {
            // After a recovery the missed messages follow, and each tells its offset.
            self.remember(frame, group);
        }
        let at = match position(frame) {
            Some(position) => format!("{group} at {position}"),
            None => group.to_owned(),
        };
        let reason = frame.get("reason").and_then(Value::as_str).unwrap_or("unknown");
        match recovered {
            Some(true) => Step::Note(format!("subscribed to {at}, missed messages follow")),
            Some(false) => Step::Note(format!("subscribed to {at}; what was missed is lost ({reason})")),
            None => Step::Note(format!("subscribed to {at}")),
        }
    }

    fn remember(&mut self, frame: &Value, group: &str) {
        if let Some(position) = position(frame) {
            self.positions.insert(group.to_owned(), position);
        } else if let (Some(known), Some(offset)) = (self.positions.get_mut(group), offset(frame)) {
            known.offset = offset;
        }
    }

    /// Whether as much was printed as was asked for.
    pub(super) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// Whether a subscription was ever effective.
    pub(super) fn was_subscribed(&self) -> bool {
        self.was_subscribed
    }

    /// Whether one was since the last time this was asked.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }
}

/// The epoch and offset in a frame. A message has only an offset: its epoch is the one told last.
fn position(frame: &Value) -> Option<Position> {
    Position::new(frame.get("epoch")?.as_str()?, offset(frame)?).ok()
}

fn offset(frame: &Value) -> Option<u64> {
    frame.get("offset")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(groups: &[&str]) -> Follow {
        let groups = groups.iter().map(|g| GroupName::parse(g).expect("a good name")).collect();
        Follow::new(Wanted::Groups(groups), None)
    }

    #[test]
    fn it_comes_back_to_where_it_was() {
        let mut follow = follow(&["a", "b"]);
        assert_eq!(follow.commands()[0], r#"{"group":"a","id":0,"type":"subscribe"}"#);
        follow.step(r#"{"type":"subscribed","id":0,"group":"a","epoch":"x","offset":3}"#);
        follow.step(r#"{"type":"subscribed","id":1,"group":"b"}"#);
        assert_eq!(follow.step(r#"{"type":"message","group":"a","offset":4,"message":{"type":"t"}}"#), Step::Print);
        let after = r#"{"after":{"epoch":"x","offset":4},"group":"a","id":0,"type":"subscribe"}"#;
        assert_eq!(follow.commands(), [after, r#"{"group":"b","id":1,"type":"subscribe"}"#]);
        // Recovered: the head in the answer is ahead of what will still be replayed.
        follow.step(r#"{"type":"subscribed","group":"a","recovered":true,"epoch":"x","offset":9}"#);
        assert_eq!(follow.commands()[0], after);
        follow.step(r#"{"type":"gap","group":"a","missed":null,"reason":"broker_gap","epoch":"y","offset":1}"#);
        assert!(follow.commands()[0].contains(r#"{"epoch":"y","offset":1}"#));
    }

    #[test]
    fn a_query_is_followed_anew_on_each_connection() {
        let params = json!({"origin": "JFK"}).as_object().cloned().expect("an object");
        let mut follow = Follow::new(Wanted::Query("routes".to_owned(), params), None);
        let command = r#"{"id":0,"params":{"origin":"JFK"},"query":"routes","type":"subscribe"}"#;
        assert_eq!(follow.commands(), [command]);
        let told = follow.step(r#"{"type":"subscribed","id":0,"query":"routes","group":"query.x"}"#);
        assert_eq!(told, Step::Note("subscribed to routes".to_owned()));
        let push = r#"{"type":"message","group":"query.x","message":{"type":"query.snapshot","rows":[]}}"#;
        assert_eq!(follow.step(push), Step::Print);
        assert_eq!(follow.commands(), [command]);
        assert!(matches!(follow.begin_after("x:1"), Err(CliError::Usage(_))));
    }

    #[test]
    fn a_note_says_where_a_later_run_may_go_on() {
        let told = |frame: &str| match follow(&["a"]).step(frame) {
            Step::Note(text) => text,
            step => panic!("{step:?}"),
        };
        assert_eq!(told(r#"{"type":"subscribed","group":"a"}"#), "subscribed to a");
        let at = r#"{"type":"subscribed","group":"a","epoch":"x","offset":3}"#;
        assert_eq!(told(at), "subscribed to a at x:3");
        let lost = r#"{"type":"subscribed","group":"a","epoch":"y","offset":3,"recovered":false,"reason":"ahead"}"#;
        assert_eq!(told(lost), "subscribed to a at y:3; what was missed is lost (ahead)");
    }

    #[test]
    fn errors_end_it_unless_they_pass_by_themselves() {
        let error = |retriable| format!(r#"{{"type":"error","code":"c","message":"m","retriable":{retriable}}}"#);
        assert_eq!(follow(&["a"]).step(&error(true)), Step::Again("refused with c: m".to_owned()));
        assert_eq!(follow(&["a"]).step(&error(false)), Step::Fail("refused with c: m".to_owned()));
        assert!(matches!(follow(&["a"]).step("<html>"), Step::Fail(_)));
    }

    #[test]
    fn it_counts_what_it_prints() {
        let mut follow = Follow { left: Some(1), ..follow(&["a"]) };
        follow.step(r#"{"type":"subscribed","group":"a"}"#);
        assert!(!follow.is_done() && follow.take_progress() && !follow.take_progress());
        follow.step(r#"{"type":"joined","group":"a","member":"m"}"#);
        assert!(follow.is_done());
    }

    #[test]
    fn a_first_position_is_of_one_group() {
        assert!(follow(&["a"]).begin_after("x-y:7").is_ok());
        for (groups, text) in
            [(&["a", "b"][..], "x:1"), (&["a"], "x"), (&["a"], ":1"), (&["a"], "x:-1"), (&["a"], "x:y:7")]
        {
            assert!(matches!(follow(groups).begin_after(text), Err(CliError::Usage(_))), "{text}");
        }
    }
}
