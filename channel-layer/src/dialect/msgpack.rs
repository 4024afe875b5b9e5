//! MessagePack and JSON, each made of the other without a tree between them; as Python's `msgpack` writes it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};

use super::CHANNEL_KEY;

/// How deeply arrays and maps may nest, as in messages.
const DEPTH_MAX: usize = groupcast_protocol::message::DEPTH_MAX;
/// The key of an object that stands for bytes.
const BYTES_KEY: &str = "$bytes";

/// Bytes that are no MessagePack, or that a message cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MsgpackError {
    /// It ends before it should.
    #[error("it ends before it should")]
    Short,
    /// Something is behind it.
    #[error("something is behind its end")]
    Rest,
    /// A message is a map.
    #[error("it is not a map")]
    NotAMap,
    /// A key is no text.
    #[error("a key is not a text")]
    Key,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Utf8,
    /// It nests too deeply.
    #[error("it nests deeper than {DEPTH_MAX} levels")]
    Depth,
    /// An extension type, or a byte that begins nothing.
    #[error("it has a type that JSON has not")]
    Type,
}

/// A map as JSON, and the names under [`CHANNEL_KEY`], which is taken out.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The JSON text of the map.
    pub json: Vec<u8>,
    /// One name, or several.
    pub channels: Vec<String>,
}

/// Reads a map.
///
/// # Errors
/// When it is none, or has what JSON has not.
pub fn decode(bytes: &[u8]) -> Result<Decoded, MsgpackError> {
    let mut reader = Reader { rest: bytes };
    let count = match reader.byte()? {
        head @ 0x80..=0x8f => usize::from(head & 0x0f),
        0xde => reader.number(2)?,
        0xdf => reader.number(4)?,
        _ => return Err(MsgpackError::NotAMap),
    };
    // JSON takes a little more room than what it is made of.
    let (mut json, mut channels) = (Vec::with_capacity(bytes.len() + bytes.len() / 4), Vec::new());
    json.push(b'{');
    for _ in 0..count {
        let key = reader.key()?;
        if key == CHANNEL_KEY {
            channels = reader.names()?;
            continue;
        }
        reader.entry(key, &mut json, 1)?;
    }
    json.push(b'}');
    if reader.rest.is_empty() { Ok(Decoded { json, channels }) } else { Err(MsgpackError::Rest) }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, MsgpackError> {
        let (first, rest) = self.rest.split_first().ok_or(MsgpackError::Short)?;
        self.rest = rest;
        Ok(*first)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], MsgpackError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(MsgpackError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MsgpackError> {
        self.take(N)?.try_into().map_err(|_| MsgpackError::Short)
    }

    /// A big-endian number of up to 4 bytes: a length or a count.
    fn number(&mut self, bytes: usize) -> Result<usize, MsgpackError> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn key(&mut self) -> Result<&'a str, MsgpackError> {
        let head = self.byte()?;
        let len = self.text_len(head).or_else(|| self.bin_len(head)).ok_or(MsgpackError::Key)??;
        std::str::from_utf8(self.take(len)?).map_err(|_| MsgpackError::Utf8)
    }

    fn text_len(&mut self, head: u8) -> Option<Result<usize, MsgpackError>> {
        match head {
            0xa0..=0xbf => Some(Ok(usize::from(head & 0x1f))),
            0xd9 => Some(self.number(1)),
            0xda => Some(self.number(2)),
            0xdb => Some(self.number(4)),
            _ => None,
        }
    }

    fn bin_len(&mut self, head: u8) -> Option<Result<usize, MsgpackError>> {
        match head {
            0xc4 => Some(self.number(1)),
            0xc5 => Some(self.number(2)),
            0xc6 => Some(self.number(4)),
            _ => None,
        }
    }

    /// A text, or an array of texts.
    fn names(&mut self) -> Result<Vec<String>, MsgpackError> {
        let before = self.rest;
        let count = match self.byte()? {
            head @ 0x90..=0x9f => usize::from(head & 0x0f),
            0xdc => self.number(2)?,
            0xdd => self.number(4)?,
            _ => {
                self.rest = before;
                return Ok(vec![self.key()?.to_owned()]);
            }
        };
        // Not as many as it says: each takes a byte at least.
        (0..count).map(|_| self.key().map(str::to_owned)).collect()
    }

    fn entry(&mut self, key: &str, json: &mut Vec<u8>, depth: usize) -> Result<(), MsgpackError> {
        if json.last() != Some(&b'{') {
            json.push(b',');
        }
        text(key, json);
        json.push(b':');
        self.value(json, depth)
    }

    fn value(&mut self, json: &mut Vec<u8>, depth: usize) -> Result<(), MsgpackError> {
        let head = self.byte()?;
        if let Some(len) = self.text_len(head) {
            let bytes = self.take(len?)?;
            text(std::str::from_utf8(bytes).map_err(|_| MsgpackError::Utf8)?, json);
            return Ok(());
        }
        if let Some(len) = self.bin_len(head) {
            let bytes = self.take(len?)?;
            json.extend_from_slice(format!("{{\"{BYTES_KEY}\":\"{}\"}}", STANDARD.encode(bytes)).as_bytes());
            return Ok(());
        }
        match head {
            0x00..=0x7f => number(head, json),
            0xe0..=0xff => number(head as i8, json),
            0xc0 => json.extend_from_slice(b"null"),
            0xc2 => json.extend_from_slice(b"false"),
            0xc3 => json.extend_from_slice(b"true"),
            0xca => float(f64::from(f32::from_be_bytes(self.array()?)), json),
            0xcb => float(f64::from_be_bytes(self.array()?), json),
            0xcc => number(self.byte()?, json),
            0xcd => number(u16::from_be_bytes(self.array()?), json),
            0xce => number(u32::from_be_bytes(self.array()?), json),
            0xcf => number(u64::from_be_bytes(self.array()?), json),
            0xd0 => number(self.byte()? as i8, json),
            0xd1 => number(i16::from_be_bytes(self.array()?), json),
            0xd2 => number(i32::from_be_bytes(self.array()?), json),
            0xd3 => number(i64::from_be_bytes(self.array()?), json),
            0x80..=0x8f => return self.map(usize::from(head & 0x0f), json, depth),
            0xde => return self.number(2).and_then(|count| self.map(count, json, depth)),
            0xdf => return self.number(4).and_then(|count| self.map(count, json, depth)),
            0x90..=0x9f => return self.list(usize::from(head & 0x0f), json, depth),
            0xdc => return self.number(2).and_then(|count| self.list(count, json, depth)),
            0xdd => return self.number(4).and_then(|count| self.list(count, json, depth)),
            _ => return Err(MsgpackError::Type),
        }
        Ok(())
    }

    fn map(&mut self, count: usize, json: &mut Vec<u8>, depth: usize) -> Result<(), MsgpackError> {
        if depth >= DEPTH_MAX {
            return Err(MsgpackError::Depth);
        }
        json.push(b'{');
        for _ in 0..count {
            let key = self.key()?;
            self.entry(key, json, depth + 1)?;
        }
        json.push(b'}');
        Ok(())
    }

    fn list(&mut self, count: usize, json: &mut Vec<u8>, depth: usize) -> Result<(), MsgpackError> {
        if depth >= DEPTH_MAX {
            return Err(MsgpackError::Depth);
        }
        json.push(b'[');
        for at in 0..count {
            if at > 0 {
                json.push(b',');
            }
            self.value(json, depth + 1)?;
        }
        json.push(b']');
        Ok(())
    }
}

fn text(text: &str, json: &mut Vec<u8>) {
    serde_json::to_writer(json, text).expect("a text is JSON, and memory takes it");
}

fn number(number: impl fmt::Display, json: &mut Vec<u8>) {
    json.extend_from_slice(number.to_string().as_bytes());
}

fn float(number: f64, json: &mut Vec<u8>) {
    // Not finite: null.
    serde_json::to_writer(json, &number).expect("a number is JSON, and memory takes it");
}

/// Writes a JSON object, with names under [`CHANNEL_KEY`] behind all else.
///
/// # Errors
/// When the text is no JSON object.
pub fn encode(json: &[u8], channels: &super::To<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let mut fields = Vec::with_capacity(json.len());
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let count = deserializer.deserialize_map(Fields(&mut fields))?;
    deserializer.end()?;
    let more = channels.write_msgpack(&mut fields);
    let mut all = Vec::with_capacity(fields.len() + 5);
    write_head(&mut all, count + usize::from(more), 0x80, 0x0f, [0xde, 0xdf]);
    all.extend_from_slice(&fields);
    Ok(all)
}

/// Writes a text.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        len @ 0..=31 => out.push(0xa0 | len as u8),
        len @ 32..=0xff => out.extend_from_slice(&[0xd9, len as u8]),
        len => write_long(out, len, [0xda, 0xdb]),
    }
    out.extend_from_slice(text.as_bytes());
}

/// Writes the head of an array.
pub(crate) fn write_array(out: &mut Vec<u8>, len: usize) {
    write_head(out, len, 0x90, 0x0f, [0xdc, 0xdd]);
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        len @ 0..=0xff => out.extend_from_slice(&[0xc4, len as u8]),
        len => write_long(out, len, [0xc5, 0xc6]),
    }
    out.extend_from_slice(bytes);
}

fn write_head(out: &mut Vec<u8>, len: usize, short: u8, short_max: usize, long: [u8; 2]) {
    if len <= short_max {
        out.push(short | len as u8);
    } else {
        write_long(out, len, long);
    }
}

fn write_long(out: &mut Vec<u8>, len: usize, [two, four]: [u8; 2]) {
    match u16::try_from(len) {
        Ok(len) => {
            out.push(two);
            out.extend_from_slice(&len.to_be_bytes());
        }
        Err(_) => {
            out.push(four);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

fn write_unsigned(out: &mut Vec<u8>, number: u64) {
    match number {
        0..=0x7f => out.push(number as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, number as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(number as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&(number as u32).to_be_bytes());
        }
        _ => {
            out.push(0xcf);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

fn write_signed(out: &mut Vec<u8>, number: i64) {
    match number {
        0.. => write_unsigned(out, number as u64),
        -0x20..=-1 => out.push(number as u8),
        -0x80..=-0x21 => out.extend_from_slice(&[0xd0, number as u8]),
        -0x8000..=-0x81 => {
            out.push(0xd1);
            out.extend_from_slice(&(number as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xd2);
            out.extend_from_slice(&(number as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

/// Writes the fields of an object, and says how many they are.
struct Fields<'a>(&'a mut Vec<u8>);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == CHANNEL_KEY {
                return Err(A::Error::custom(format!("`{CHANNEL_KEY}` is not for senders")));
            }
            write_text(self.0, &key);
            map.next_value_seed(Any(self.0))?;
            count += 1;
        }
        Ok(count)
    }
}

/// Writes whatever comes.
struct Any<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Any<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push(0xc0);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.push(if value { 0xc3 } else { 0xc2 });
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        write_unsigned(self.0, number);
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        write_signed(self.0, number);
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.0.push(0xcb);
        self.0.extend_from_slice(&number.to_be_bytes());
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        write_text(self.0, text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let (mut inner, mut count) = (Vec::new(), 0);
        while items.next_element_seed(Any(&mut inner))?.is_some() {
            count += 1;
        }
        write_array(self.0, count);
        self.0.append(&mut inner);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut inner, mut count) = (Vec::new(), 0);
        let mut bytes = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let at = inner.len();
            write_text(&mut inner, &key);
            let value = inner.len();
            map.next_value_seed(Any(&mut inner))?;
            bytes = (count == 0 && key == BYTES_KEY).then(|| written_bytes(&inner[value..])).flatten();
            count += 1;
            debug_assert!(at < value, "a key takes room");
        }
        match bytes {
            Some(bytes) => write_bytes(self.0, &bytes),
            None => {
                write_head(self.0, count, 0x80, 0x0f, [0xde, 0xdf]);
                self.0.append(&mut inner);
            }
        }
        Ok(())
    }
}

/// The bytes that a written text is the base64 of.
fn written_bytes(written: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader { rest: written };
    let head = reader.byte().ok()?;
    let len = reader.text_len(head)?.ok()?;
    STANDARD.decode(reader.take(len).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::To;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex"))
            .collect()
    }

    const WORK: &str = r#"{"type":"execute_query","queryset_id":42}"#;

    #[test]
    fn is_what_python_writes() {
        let plain = hex("82a474797065ad657865637574655f7175657279ab71756572797365745f69642a");
        assert_eq!(encode(WORK.as_bytes(), &To::Nobody).expect("JSON"), plain);
        assert_eq!(decode(&plain).expect("a map"), Decoded { json: WORK.into(), channels: vec![] });
        let group = hex(
            "83a474797065ad657865637574655f7175657279ab71756572797365745f69642ab05f5f617367695f6368616e6e656c5f5f91af73706563696669632e677731216737",
        );
        assert_eq!(encode(WORK.as_bytes(), &To::Several(&["specific.gw1!g7"])).expect("JSON"), group);
        assert_eq!(decode(&group).expect("a map").channels, ["specific.gw1!g7"]);
        let single = hex(
            "83a474797065ad657865637574655f7175657279ab71756572797365745f69642ab05f5f617367695f6368616e6e656c5f5fb073706563696669632e67773121633132",
        );
        assert_eq!(encode(WORK.as_bytes(), &To::One("specific.gw1!c12")).expect("JSON"), single);
        assert_eq!(
            decode(&single).expect("a map"),
            Decoded { json: WORK.into(), channels: vec!["specific.gw1!c12".into()] }
        );
        let mixed = hex(
            "87 a474797065ac636861742e6d657373616765 a474657874a26869 a162c40200ff a16eff a166cb3ff8000000000000 a16c9301c0c3 a174920102",
        );
        let json =
            r#"{"type":"chat.message","text":"hi","b":{"$bytes":"AP8="},"n":-1,"f":1.5,"l":[1,null,true],"t":[1,2]}"#;
        assert_eq!(encode(json.as_bytes(), &To::Nobody).expect("JSON"), mixed);
        assert_eq!(String::from_utf8(decode(&mixed).expect("a map").json).expect("UTF-8"), json);
    }

    #[test]
    fn numbers_take_the_shortest_form() {
        for (number, expected) in [
            ("127", "7f"),
            ("128", "cc80"),
            ("255", "ccff"),
            ("256", "cd0100"),
            ("65536", "ce00010000"),
            ("4294967296", "cf0000000100000000"),
            ("18446744073709551615", "cfffffffffffffffff"),
            ("-32", "e0"),
            ("-33", "d0df"),
            ("-128", "d080"),
            ("-129", "d1ff7f"),
            ("-32769", "d2ffff7fff"),
            ("-2147483649", "d3ffffffff7fffffff"),
            ("-9223372036854775808", "d38000000000000000"),
        ] {
            let json = format!(r#"{{"n":{number}}}"#);
            let bytes = encode(json.as_bytes(), &To::Nobody).expect("JSON");
            assert_eq!(bytes[3..], hex(expected), "{number}");
            assert_eq!(decode(&bytes).expect("a map").json, json.as_bytes());
        }
    }

    #[test]
    fn long_things_have_long_heads() {
        for len in [0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536] {
            let json = serde_json::json!({"type": "t", "s": "x".repeat(len), "l": vec![0; len]}).to_string();
            let bytes = encode(json.as_bytes(), &To::Nobody).expect("JSON");
            let value: serde_json::Value = serde_json::from_slice(&decode(&bytes).expect("a map").json).expect("JSON");
            assert_eq!(value, serde_json::from_str::<serde_json::Value>(&json).expect("JSON"), "{len}");
        }
    }

    #[test]
    fn what_a_message_cannot_have_is_refused() {
        for (bytes, error) in [
            ("", MsgpackError::Short),
            ("c0", MsgpackError::NotAMap),
            ("93010203", MsgpackError::NotAMap),
            ("81", MsgpackError::Short),
            ("81a161", MsgpackError::Short),
            ("810101", MsgpackError::Key),
            ("81a1ff01", MsgpackError::Utf8),
            ("81a16101 00", MsgpackError::Rest),
            ("81a161d40102", MsgpackError::Type),
            ("81a161c1", MsgpackError::Type),
            ("81a161a2ff", MsgpackError::Short),
            ("81a161a1ff", MsgpackError::Utf8),
            ("dfffffffff", MsgpackError::Short),
            ("81a161ddffffffff", MsgpackError::Short),
        ] {
            assert_eq!(decode(&hex(bytes)), Err(error), "{bytes}");
        }
        let deep = [hex("81a161"), vec![0x91; 500], vec![0xc0]].concat();
        assert_eq!(decode(&deep), Err(MsgpackError::Depth));
        assert!(encode(br#"{"type":"a","__asgi_channel__":"x"}"#, &To::Nobody).is_err());
        assert!(encode(b"[1]", &To::Nobody).is_err());
    }

    #[test]
    fn what_is_not_finite_is_null() {
        assert_eq!(decode(&hex("81a161cb7ff8000000000000")).expect("a map").json, br#"{"a":null}"#);
        assert_eq!(decode(&hex("81a161cb7ff0000000000000")).expect("a map").json, br#"{"a":null}"#);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            if let Ok(decoded) = decode(&bytes) {
                serde_json::from_slice::<serde::de::IgnoredAny>(&decoded.json).expect("it is JSON");
            }
        }
    }
}
