//! `[[schedule]]`: messages that are sent when their time comes.

use bytes::Bytes;
use groupcast_protocol::Message;
use serde::{Deserialize, Serialize};

/// `[[schedule]]`: sends a message to a group at each tick of a clock.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Its name, unique; the rule of group names. Ticks are remembered under it.
    pub name: String,
    /// When: five fields (minute, hour, day of the month, month, day of the week), or six with the second first.
    pub cron: String,
    /// Whose clock, as in `Europe/Berlin`. Default `UTC`.
    #[serde(default = "ScheduleConfig::default_timezone")]
    pub timezone: String,
    /// The group that gets the message.
    pub group: String,
    /// What is sent, as a client would.
    pub message: toml::Table,
    /// What becomes of ticks that nobody was there for. Default `none`.
    #[serde(default)]
    pub catch_up: CatchUp,
}

/// What becomes of ticks that nobody was there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They are missed.
    #[default]
    None,
    /// The last of them is made up for, once.
    One,
}

impl ScheduleConfig {
    fn default_timezone() -> String {
        "UTC".to_owned()
    }

    /// The message as it is sent.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub fn message(&self) -> Result<Message, String> {
        let json = serde_json::to_vec(&json(self.message.clone().into())).map_err(|error| error.to_string())?;
        Message::parse(Bytes::from(json)).map_err(|error| error.to_string())
    }
}

/// TOML as JSON; times, which JSON does not have, as text.
fn json(value: toml::Value) -> serde_json::Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(json).collect(),
        toml::Value::Table(table) => table.into_iter().map(|(key, value)| (key, json(value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_a_message() {
        let text = "name = 'x'\ncron = '* * * * *'\ngroup = 'g'\n\
            message = { type = 'work', n = 1, half = 0.5, list = [true, { at = 2026-01-02T03:04:05Z }] }";
        let config: ScheduleConfig = toml::from_str(text).expect("a schedule");
        assert_eq!((config.timezone.as_str(), config.catch_up), ("UTC", CatchUp::None));
        let sent: serde_json::Value = serde_json::from_slice(config.message().expect("a message").raw()).expect("JSON");
        let expected =
            serde_json::json!({"type": "work", "n": 1, "half": 0.5, "list": [true, {"at": "2026-01-02T03:04:05Z"}]});
        assert_eq!(sent, expected);
        let nameless = ScheduleConfig { message: toml::Table::new(), ..config };
        assert!(nameless.message().is_err());
    }
}
