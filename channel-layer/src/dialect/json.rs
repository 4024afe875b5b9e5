//! The JSON form of frames, as `json.dumps` and `json.loads` have it: `NaN` and infinities are read, as `null`.
//!
//! A message is written as the text that it is, with whom it is for at its end; Python reads any JSON, so nothing is
//! escaped or spaced its way. Bytes have no form of their own here.

use std::borrow::Cow;

use groupcast_protocol::{Message, MessageError};

use super::CHANNEL_KEY;
use super::codec::{CodecError, Decoded, To};
use super::jsontext::{Token, Tokens, quote, unescape};

/// Writes a message, with names under `__asgi_channel__` behind all else.
///
/// # Errors
/// When the message has that key itself.
pub fn encode(message: &Message, to: &To<'_>) -> Result<Vec<u8>, CodecError> {
    let text = message.as_str();
    if members(text).any(|member| member.key == CHANNEL_KEY) {
        return Err(CodecError::Reserved);
    }
    // A message has a `type`, so there is always something before the comma.
    let mut json = format!("{}, \"{CHANNEL_KEY}\": ", text.strip_suffix('}').unwrap_or(text));
    match to {
        To::Nobody => return Ok(text.as_bytes().to_vec()),
        To::One(name) => quote(name, &mut json),
        To::Several(names) => {
            json.push('[');
            for (at, name) in names.iter().enumerate() {
                json.push_str(if at == 0 { "" } else { ", " });
                quote(name, &mut json);
            }
            json.push(']');
        }
    }
    json.push('}');
    Ok(json.into_bytes())
}

/// Reads a message of at most `max` bytes, and takes the channels out of it.
///
/// # Errors
/// When it is no JSON object that can be a message.
pub fn decode(payload: &[u8], max: usize) -> Result<Decoded, CodecError> {
    if payload.len() > max {
        return Err(CodecError::TooLarge { max });
    }
    let text = std::str::from_utf8(payload).map_err(|_| MessageError::NotUtf8)?;
    // Checked as a whole before anything is cut out of it.
    let text = without_nan(text);
    // `null` is longer than `NaN`.
    if text.len() > max {
        return Err(CodecError::TooLarge { max });
    }
    let message = Message::parse(text.into())?;
    let text = message.as_str();
    let mut found = members(text).filter(|member| member.key == CHANNEL_KEY);
    match (found.next(), found.next()) {
        (None, _) => drop(found),
        (Some(_), Some(_)) => return Err(CodecError::Channels),
        (Some(member), None) => {
            let channels = names(&text[member.value..member.end])?;
            return Ok(Decoded { message: Message::parse(without(text, &member).into())?, channels });
        }
    }
    Ok(Decoded { message, channels: Vec::new() })
}

/// A member of the outermost object: its key, and where it is.
struct Member<'a> {
    key: Cow<'a, str>,
    start: usize,
    value: usize,
    end: usize,
}

/// The members of an object that is known to be one.
fn members(text: &str) -> impl Iterator<Item = Member<'_>> {
    let mut tokens = Tokens::new(text);
    tokens.next();
    std::iter::from_fn(move || {
        let start = tokens.at();
        let Some(Token::Text(key)) = tokens.next() else { return None };
        let (value, mut depth) = (tokens.at(), 0usize);
        loop {
            match tokens.next()? {
                Token::Object | Token::Array => depth += 1,
                Token::Close => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return Some(Member { key: unescape(key), start, value, end: tokens.at() });
            }
        }
    })
}

fn names(value: &str) -> Result<Vec<String>, CodecError> {
    let mut tokens = Tokens::new(value);
    match tokens.next() {
        Some(Token::Text(name)) => Ok(vec![unescape(name).into_owned()]),
        Some(Token::Array) => {
            let names = tokens.take_while(|token| *token != Token::Close).map(|token| match token {
                Token::Text(name) => Ok(unescape(name).into_owned()),
                _ => Err(CodecError::Channels),
            });
            names.collect()
        }
        _ => Err(CodecError::Channels),
    }
}

/// The object without one member and the comma beside it: the one before, or behind the first.
fn without(text: &str, member: &Member<'_>) -> String {
    let before = text[..member.start].trim_end();
    let behind = text[member.end..].trim_start();
    let is_first = before.ends_with('{');
    format!("{before}{}", behind.strip_prefix(',').filter(|_| is_first).unwrap_or(behind))
}

/// `NaN`, `Infinity` and `-Infinity` outside of texts are `null`: Python writes and reads them, JSON has none.
fn without_nan(text: &str) -> String {
    let (mut out, mut rest, mut in_text) = (String::with_capacity(text.len()), text, false);
    while let Some(at) = rest.find(if in_text { &['"', '\\'][..] } else { &['"', 'N', 'I', '-'] }) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let word = ["NaN", "-Infinity", "Infinity"].into_iter().find(|word| !in_text && from.starts_with(word));
        let taken = match word {
            Some(word) => {
                out.push_str("null");
                word.len()
            }
            None => {
                in_text ^= from.starts_with('"');
                // An escape is taken whole, so that its quote ends nothing.
                let escape = from.strip_prefix('\\').and_then(|behind| behind.chars().next());
                let len = 1 + escape.map_or(0, char::len_utf8);
                out.push_str(&from[..len]);
                len
            }
        };
        rest = &from[taken..];
    }
    out.push_str(rest);
    out
}
