//! The serializer `json` of channels_redis: the message as JSON text, with the channels in it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::CHANNEL_KEY;
use super::msgpack::Decoded;

/// Writes a message, with names under [`CHANNEL_KEY`] behind all else.
///
/// # Errors
/// When the message has that key itself.
pub fn encode(json: &[u8], to: &super::To<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let Some(channels) = to.as_json() else { return Ok(json.to_vec()) };
    if json.windows(CHANNEL_KEY.len()).any(|part| part == CHANNEL_KEY.as_bytes()) {
        // Seldom: then it is looked at closely.
        read(json, true)?;
    }
    let body = json.strip_suffix(b"}").unwrap_or(json);
    Ok([body, format!(", \"{CHANNEL_KEY}\": {channels}}}").as_bytes()].concat())
}

/// Reads a message, and takes the channels out of it.
///
/// # Errors
/// When it is no JSON object. Python's `NaN` is none.
pub fn decode(bytes: &[u8]) -> Result<Decoded, serde_json::Error> {
    read(bytes, false)
}

fn read(bytes: &[u8], refuses: bool) -> Result<Decoded, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let decoded = deserializer.deserialize_map(Object { refuses })?;
    deserializer.end()?;
    Ok(decoded)
}

struct Object {
    /// Whether the key of the channels may not be there.
    refuses: bool,
}

impl<'de> Visitor<'de> for Object {
    type Value = Decoded;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Decoded, A::Error> {
        use serde::de::Error as _;

        let (mut json, mut channels) = (vec![b'{'], Vec::new());
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let value: &RawValue = map.next_value()?;
            if key == CHANNEL_KEY {
                if self.refuses {
                    return Err(A::Error::custom(format!("`{CHANNEL_KEY}` is not for senders")));
                }
                channels = names(value.get()).map_err(A::Error::custom)?;
                continue;
            }
            if json.len() > 1 {
                json.push(b',');
            }
            serde_json::to_writer(&mut json, &key).map_err(A::Error::custom)?;
            json.push(b':');
            json.extend_from_slice(value.get().as_bytes());
        }
        json.push(b'}');
        Ok(Decoded { json, channels })
    }
}

fn names(text: &str) -> Result<Vec<String>, serde_json::Error> {
    if text.starts_with('[') { serde_json::from_str(text) } else { serde_json::from_str(text).map(|name| vec![name]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::To;

    #[test]
    fn python_reads_what_is_written_and_the_other_way_round() {
        let message = br#"{"type":"execute_query","queryset_id":42}"#;
        let one = encode(message, &To::One("specific.gw1!c12")).expect("JSON");
        assert_eq!(one, br#"{"type":"execute_query","queryset_id":42, "__asgi_channel__": "specific.gw1!c12"}"#);
        let decoded = decode(&one).expect("JSON");
        assert_eq!(decoded, Decoded { json: message.to_vec(), channels: vec!["specific.gw1!c12".into()] });
        let python = br#"{"__asgi_channel__": ["a!b", "a!c"], "type": "x", "u": "\u00e9", "n": {"a": [1, 2]}}"#;
        let decoded = decode(python).expect("JSON");
        assert_eq!(decoded.channels, ["a!b", "a!c"]);
        assert_eq!(decoded.json, br#"{"type":"x","u":"\u00e9","n":{"a": [1, 2]}}"#);
        assert_eq!(encode(message, &To::Nobody).expect("JSON"), message);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[]", "7", r#"{"a":NaN}"#, r#"{"a":1} x"#, r#"{"__asgi_channel__":7}"#] {
            assert!(decode(text.as_bytes()).is_err(), "{text}");
        }
        assert!(encode(br#"{"type":"a","__asgi_channel__":"x"}"#, &To::One("a!b")).is_err());
        assert!(encode(br#"{"type":"__asgi_channel__"}"#, &To::One("a!b")).is_ok());
    }
}
