//! Reads a WebSocket by tungstenite, which never gets to write: what it would answer (pongs, the close reply) is
//! handed to the outbox, where it waits for its turn between frames.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;

use bytes::Bytes;
use groupcast_protocol::close::CloseCode;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::socket::Socket;

/// tungstenite zero-fills its buffer at every read: small is quick, and it is what an idle connection costs.
const BUFFER_BYTES: usize = 4 << 10;

/// What came in.
pub(super) enum Incoming {
    Text(Utf8Bytes),
    Binary,
    /// A ping or pong: the other end lives.
    Control,
    /// The other end has said goodbye with this code (1005 for none), or hung up.
    Closed(Option<u16>),
    /// The other end broke a rule; close with this code.
    Broken(CloseCode, String),
    /// Nothing more at the moment.
    Nothing,
}

/// The reading half of a WebSocket.
pub(super) struct Reader {
    websocket: WebSocket<Tap>,
}

impl Reader {
    /// Reads a socket whose upgrade left `already_read` bytes behind.
    pub(super) fn new(socket: Rc<Socket>, already_read: Bytes, message_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(message_bytes_max + BUFFER_BYTES)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let tap = Tap { socket, answers: RefCell::default() };
        let websocket = WebSocket::from_partially_read(tap, already_read.into(), Role::Server, Some(config));
        Self { websocket }
    }

    /// Reads the next message, if one is there. Never waits.
    pub(super) fn next(&mut self) -> Incoming {
        match self.websocket.read() {
            Ok(Message::Text(text)) => Incoming::Text(text),
            Ok(Message::Binary(_)) => Incoming::Binary,
            Ok(Message::Ping(_) | Message::Pong(_)) => Incoming::Control,
            Ok(Message::Close(frame)) => Incoming::Closed(Some(known_code(frame.map(|frame| frame.code.into())))),
            Ok(Message::Frame(_)) => Incoming::Nothing,
            Err(error) => refused(error),
        }
    }

    /// The frames that tungstenite would have written since the last call, ready for the outbox.
    pub(super) fn answers(&mut self) -> Option<Bytes> {
        // Moves a queued pong or close reply to the tap. Its errors come again at the next read.
        let _ = self.websocket.flush();
        let answers = self.websocket.get_ref().answers.take();
        (!answers.is_empty()).then(|| answers.into())
    }
}

fn refused(error: Error) -> Incoming {
    match error {
        Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock => Incoming::Nothing,
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_) => Incoming::Closed(None),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Incoming::Closed(None),
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            let reason = format!("the message has {size} bytes, at most {max_size} are allowed");
            Incoming::Broken(CloseCode::TooBig, reason)
        }
        Error::Capacity(error) => Incoming::Broken(CloseCode::TooBig, error.to_string()),
        Error::Utf8(_) => Incoming::Broken(CloseCode::NotUtf8, "a text message is not UTF-8".to_owned()),
        error => Incoming::Broken(CloseCode::Protocol, error.to_string()),
    }
}

/// A client may send any code up to 4999; as a label of a metric only the registered ones are kept.
fn known_code(code: Option<u16>) -> u16 {
    match code {
        Some(code @ (1000..=1015 | 3000 | 3003 | 3008)) => code,
        Some(_) => 4000,
        None => 1005,
    }
}

/// The stream as tungstenite sees it.
struct Tap {
    socket: Rc<Socket>,
    answers: RefCell<Vec<u8>>,
}

impl Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.stream.try_read(buffer)
    }
}

impl Write for Tap {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answers.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
