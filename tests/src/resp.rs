//! `Resp`: a client of Redis in a few lines, so that tests share no code with what they test.
//!
//! It talks RESP2. Tests of other crates include this file, so it stands on the standard library alone.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection.
#[derive(Debug)]
pub struct Resp {
    stream: BufReader<TcpStream>,
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// `+OK`.
    Status(String),
    /// `-ERR …`.
    Error(String),
    /// `:7`.
    Number(i64),
    /// `$3…`.
    Bytes(Vec<u8>),
    /// `*2…`.
    List(Vec<Answer>),
    /// Nothing is there.
    Nil,
}

impl Resp {
    /// Connects to a port of loopback.
    ///
    /// # Errors
    ///
    /// Nobody listens.
    pub fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Runs a command.
    ///
    /// # Errors
    ///
    /// The connection is broken, or the answer takes too long. What the server refuses is an [`Answer::Error`].
    pub fn command(&mut self, words: &[impl AsRef<[u8]>]) -> io::Result<Answer> {
        self.send(words)?;
        self.answer()
    }

    /// Sends a command without waiting for what comes of it.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub fn send(&mut self, words: &[impl AsRef<[u8]>]) -> io::Result<()> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words.iter().map(AsRef::as_ref) {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request)
    }

    /// The next answer, or the next thing that the server says by itself (`SUBSCRIBE`, `MONITOR`).
    ///
    /// # Errors
    ///
    /// The connection is broken, or nothing is said for too long ([`Resp::patience`]).
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        let Some((kind, text)) = line.strip_suffix(b"\r\n").and_then(<[u8]>::split_first) else {
            return Err(ErrorKind::UnexpectedEof.into());
        };
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b'+' => Ok(Answer::Status(text)),
            b'-' => Ok(Answer::Error(text)),
            b':' => Ok(Answer::Number(number(&text)?)),
            b'$' | b'*' if text.starts_with('-') => Ok(Answer::Nil),
            b'$' => self.bytes(number(&text)?),
            b'*' => (0..number(&text)?).map(|_| self.answer()).collect::<io::Result<_>>().map(Answer::List),
            _ => Err(Error::other(format!("no answer of Redis begins with {:?}", char::from(*kind)))),
        }
    }

    /// How long the next answers may take.
    ///
    /// # Errors
    ///
    /// A time of zero.
    pub fn patience(&mut self, patience: Duration) -> io::Result<()> {
        self.stream.get_mut().set_read_timeout(Some(patience))
    }

    fn bytes(&mut self, length: i64) -> io::Result<Answer> {
        let mut bytes = vec![0; usize::try_from(length).map_err(Error::other)? + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(bytes.len() - 2);
        Ok(Answer::Bytes(bytes))
    }
}

impl Answer {
    /// A text, whichever way it was said; panics if it is none.
    #[track_caller]
    pub fn text(&self) -> String {
        match self {
            Self::Status(text) | Self::Error(text) => text.clone(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Number(number) => number.to_string(),
            Self::List(_) | Self::Nil => panic!("no text: {self:?}"),
        }
    }

    /// A number; panics if it is none.
    #[track_caller]
    pub fn number(&self) -> i64 {
        let Self::Number(number) = self else { panic!("no number: {self:?}") };
        *number
    }

    /// A list; panics if it is none.
    #[track_caller]
    pub fn list(&self) -> &[Self] {
        let Self::List(list) = self else { panic!("no list: {self:?}") };
        list
    }

    /// All texts in it, a line each, as they would be shown to a person.
    pub fn lines(&self) -> String {
        match self {
            Self::List(list) => list.iter().map(Self::lines).collect::<Vec<_>>().join("\n"),
            Self::Nil => String::new(),
            said => said.text(),
        }
    }
}

fn number(text: &str) -> io::Result<i64> {
    text.parse().map_err(Error::other)
}
