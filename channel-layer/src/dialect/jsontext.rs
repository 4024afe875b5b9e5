//! Reads JSON text that is known to be valid, token by token, without a tree.
//!
//! [`groupcast_protocol::Message`] has checked the text; on any other, nothing here panics and what comes out means nothing.

use std::borrow::Cow;

/// A part of a JSON text. Commas and colons follow from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `}` or `]`
    Close,
    /// What is between the quotes, escapes and all.
    Text(&'a str),
    Number(&'a str),
    True,
    False,
    Null,
}

/// The tokens of a text. Cheap to clone: that is how to look ahead.
#[derive(Debug, Clone)]
pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Where the next token is looked for.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn text_token(&mut self) -> Token<'a> {
        let start = self.at + 1;
        let rest = &self.text.as_bytes()[start.min(self.text.len())..];
        let (mut len, mut escaped) = (0, false);
        for byte in rest {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => break,
                _ => {}
            }
            len += 1;
        }
        self.at = (start + len + 1).min(self.text.len());
        Token::Text(&self.text[start..start + len])
    }

    fn word(&mut self) -> Token<'a> {
        let rest = &self.text[self.at..];
        let is_end = |c: char| matches!(c, ',' | ']' | '}' | ':' | '"' | ' ' | '\t' | '\r' | '\n');
        let word = &rest[..rest.find(is_end).unwrap_or(rest.len())];
        self.at += word.len();
        match word {
            "true" => Token::True,
            "false" => Token::False,
            "null" => Token::Null,
            number => Token::Number(number),
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at)?, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':') {
            self.at += 1;
        }
        let token = match bytes[self.at] {
            b'{' => Token::Object,
            b'[' => Token::Array,
            b'}' | b']' => Token::Close,
            b'"' => return Some(self.text_token()),
            _ => return Some(self.word()),
        };
        self.at += 1;
        Some(token)
    }
}

/// How many values are directly in each object and array, in the order in which they begin; a key counts as one.
pub(super) fn sizes(text: &str) -> Vec<u32> {
    let (mut sizes, mut open) = (Vec::new(), Vec::new());
    for token in Tokens::new(text) {
        if token == Token::Close {
            open.pop();
            continue;
        }
        if let Some(at) = open.last() {
            let size: &mut u32 = &mut sizes[*at];
            *size += 1;
        }
        if matches!(token, Token::Object | Token::Array) {
            open.push(sizes.len());
            sizes.push(0);
        }
    }
    sizes
}

/// What a text means. Half of a surrogate pair is U+FFFD.
pub(super) fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let (mut text, mut rest) = (String::with_capacity(raw.len()), raw);
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let (meant, len) = escape(&rest[at..]);
        text.push(meant);
        rest = &rest[(at + len).min(rest.len())..];
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// What an escape means, and how long it is.
fn escape(text: &str) -> (char, usize) {
    let Some(kind) = text[1..].chars().next() else { return (char::REPLACEMENT_CHARACTER, 1) };
    let meant = match kind {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return unicode(text),
        other => return (other, 1 + other.len_utf8()),
    };
    (meant, 2)
}

fn unicode(text: &str) -> (char, usize) {
    let unit = |at: usize| {
        let hex = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(hex, 16).ok()
    };
    let Some(first) = unit(0) else { return (char::REPLACEMENT_CHARACTER, 2) };
    let pair = [first, unit(6).unwrap_or(0)];
    match char::decode_utf16(pair).next() {
        Some(Ok(meant)) => (meant, if meant.len_utf16() == 2 { 12 } else { 6 }),
        _ => (char::REPLACEMENT_CHARACTER, 6),
    }
}

/// Writes a text with its quotes.
pub(super) fn quote(text: &str, out: &mut String) {
    out.push('"');
    let mut done = 0;
    for (at, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&text[done..at]);
        match short {
            "" => {
                out.push_str("\\u00");
                out.extend([byte >> 4, byte & 15].map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or('0')));
            }
            short => out.push_str(short),
        }
        done = at + 1;
    }
    out.push_str(&text[done..]);
    out.push('"');
}
