//! `Nats`: a nats-server of a test's own; it has what a test asks for, dies and comes back when the test says so.
//!
//! Tests of the channel layer include this file, with `daemon` beside it; it needs nothing else. [`Talk`] is a client in a
//! few lines, so that tests share no code with what they test.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::daemon::{Daemon, free_port, in_venv, until};

/// JetStream with which what was acknowledged is on the disk.
pub const DURABLE: &str = "sync_interval: always";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Nats {
    daemon: Daemon,
    monitoring: u16,
}

impl Nats {
    /// Starts a server without JetStream, with further lines of configuration.
    pub fn start(lines: &str) -> Self {
        Self::start_with(|_, _| lines.to_owned())
    }

    /// Starts a server with JetStream, and with further settings of it, such as [`DURABLE`].
    pub fn start_jetstream(settings: &str) -> Self {
        Self::start_with(|_, folder| format!("jetstream {{ store_dir: \"{folder}/jetstream\"\n{settings} }}"))
    }

    /// Starts a server, with JetStream, that lets only this user in.
    pub fn start_with_user(user: &str, password: &str) -> Self {
        Self::start_with(|_, folder| {
            format!(
                "jetstream {{ store_dir: \"{folder}/jetstream\" }}\n\
                 authorization {{ user: \"{user}\", password: \"{password}\" }}"
            )
        })
    }

    /// Starts a server, with JetStream, that talks TLS only, with this certificate and key (PEM).
    pub fn start_secure(certificate: &str, key: &str) -> Self {
        Self::start_with(|daemon, folder| {
            let files = [daemon.write("cert.pem", certificate), daemon.write("key.pem", key)];
            format!(
                "jetstream {{ store_dir: \"{folder}/jetstream\" }}\n\
                 tls {{ cert_file: \"{}\", key_file: \"{}\" }}",
                files[0], files[1]
            )
        })
    }

    /// Starts three servers with JetStream that belong together.
    pub fn start_cluster() -> [Self; 3] {
        let among = [free_port(), free_port(), free_port()];
        let routes = among.map(|port| format!("nats-route://127.0.0.1:{port}")).join(", ");
        let lines = |at: usize, folder: &str| {
            format!(
                "server_name: s{at}\njetstream {{ store_dir: \"{folder}/jetstream\" }}\n\
                 cluster {{ name: c, listen: \"127.0.0.1:{}\", routes: [{routes}] }}",
                among[at]
            )
        };
        // None is healthy before most are there.
        let servers = [0, 1, 2].map(|at| Self::launch(|_, folder| lines(at, folder)));
        servers.iter().for_each(Self::await_jetstream);
        servers
    }

    fn start_with(lines: impl FnOnce(&Daemon, &str) -> String) -> Self {
        let server = Self::launch(lines);
        server.await_jetstream();
        server
    }

    fn launch(lines: impl FnOnce(&Daemon, &str) -> String) -> Self {
        let (port, monitoring) = (free_port(), free_port());
        let mut daemon = Daemon::new(in_venv("nats-server"), port, answers);
        let folder = daemon.folder().to_string_lossy().into_owned();
        let lines = lines(&daemon, &folder);
        let config = format!("host: 127.0.0.1\nport: {port}\nhttp: \"127.0.0.1:{monitoring}\"\n{lines}\n");
        let file = daemon.write("nats.conf", &config);
        daemon.arguments(["-c", &file]);
        daemon.start();
        Self { daemon, monitoring }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.daemon.port()
    }

    /// Where it is.
    pub fn address(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port())
    }

    /// Where it is for a user.
    pub fn address_of(&self, user: &str, password: &str) -> String {
        format!("nats://{user}:{password}@127.0.0.1:{}", self.port())
    }

    /// Where it talks TLS.
    pub fn secure_address(&self) -> String {
        format!("tls://127.0.0.1:{}", self.port())
    }

    /// Where its monitoring is: `HOST:PORT`.
    pub fn monitoring_address(&self) -> String {
        format!("127.0.0.1:{}", self.monitoring)
    }

    /// What a page of its monitoring says (`/jsz`, `/subsz`, `/connz`).
    #[track_caller]
    pub fn monitoring(&self, page: &str) -> String {
        ask(self.monitoring, page).expect("it tells how it is")
    }

    /// Ends it without a word (`kill -9`).
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Ends it in good order: lame ducks and all.
    pub fn terminate(&mut self) {
        self.daemon.terminate();
    }

    /// Starts it again, on its port and with what it has kept.
    pub fn restart(&mut self) {
        self.daemon.start();
        self.await_jetstream();
    }

    /// Stops its process: it holds its connections and says nothing.
    pub fn stop(&self) {
        self.daemon.stop();
    }

    /// Lets it go on.
    pub fn cont(&self) {
        self.daemon.cont();
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// A connection.
    pub fn connect(&self) -> Talk {
        Talk::open(self.port(), "{\"verbose\":false}").expect("it listens")
    }

    /// A server listens before its streams are there.
    fn await_jetstream(&self) {
        until("the server is healthy", || ask(self.monitoring, "/healthz").is_ok_and(|said| said.contains("\"ok\"")));
    }
}

/// One connection, over which the protocol's lines go as they are.
#[derive(Debug)]
pub struct Talk {
    stream: BufReader<TcpStream>,
    /// What came while something else was awaited.
    arrived: VecDeque<Message>,
}

/// A message: its subject and its payload.
pub type Message = (String, Vec<u8>);

enum Said {
    Message(Message),
    Pong,
    Other,
}

impl Talk {
    /// Connects to a port of loopback and says `CONNECT` with these options (JSON).
    ///
    /// # Errors
    ///
    /// Nobody listens, or whoever does refuses.
    pub fn open(port: u16, options: &str) -> io::Result<Self> {
        let mut talk = Self::greeted(port)?;
        write!(talk.stream.get_mut(), "CONNECT {options}\r\n")?;
        talk.flush()?;
        Ok(talk)
    }

    fn greeted(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut talk = Self { stream: BufReader::new(stream), arrived: VecDeque::new() };
        let info = talk.line()?;
        if info.starts_with("INFO ") { Ok(talk) } else { Err(Error::other(info)) }
    }

    /// Publishes; the server has it when this returns.
    ///
    /// # Errors
    ///
    /// The connection is broken, or the server refuses.
    pub fn publish(&mut self, subject: &str, payload: &[u8]) -> io::Result<()> {
        self.send(subject, payload)?;
        self.flush()
    }

    /// As [`Talk::publish`], without waiting for the server.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub fn send(&mut self, subject: &str, payload: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        write!(stream, "PUB {subject} {}\r\n", payload.len())?;
        stream.write_all(payload)?;
        stream.write_all(b"\r\n")
    }

    /// Subscribes, in a queue group or not; the server knows it when this returns.
    ///
    /// # Errors
    ///
    /// The connection is broken, or the server refuses.
    pub fn subscribe(&mut self, subject: &str, queue: Option<&str>) -> io::Result<()> {
        let queue = queue.map_or_else(String::new, |queue| format!(" {queue}"));
        write!(self.stream.get_mut(), "SUB {subject}{queue} 1\r\n")?;
        self.flush()
    }

    /// The next message; its headers are passed over.
    ///
    /// # Errors
    ///
    /// The connection is broken, or no message comes.
    pub fn message(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = self.arrived.pop_front() {
                return Ok(message);
            }
            if let Said::Message(message) = self.said()? {
                return Ok(message);
            }
        }
    }

    /// Waits until the server has seen all that was said to it.
    fn flush(&mut self) -> io::Result<()> {
        self.stream.get_mut().write_all(b"PING\r\n")?;
        loop {
            match self.said()? {
                Said::Message(message) => self.arrived.push_back(message),
                Said::Pong => return Ok(()),
                Said::Other => {}
            }
        }
    }

    fn said(&mut self) -> io::Result<Said> {
        let line = self.line()?;
        let words: Vec<&str> = line.split(' ').collect();
        let length = |word: &str| word.parse::<usize>().map_err(Error::other);
        match words[..] {
            ["MSG", subject, _, .., total] => {
                let payload = self.payload(0, length(total)?)?;
                Ok(Said::Message((subject.to_owned(), payload)))
            }
            ["HMSG", subject, _, .., head, total] => {
                let payload = self.payload(length(head)?, length(total)?)?;
                Ok(Said::Message((subject.to_owned(), payload)))
            }
            ["PONG"] => Ok(Said::Pong),
            ["-ERR", ..] => Err(Error::other(line)),
            ["PING"] => self.stream.get_mut().write_all(b"PONG\r\n").map(|()| Said::Other),
            _ => Ok(Said::Other),
        }
    }

    fn payload(&mut self, head: usize, total: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; total + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(total);
        Ok(bytes.split_off(head))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

/// Whether it greets.
fn answers(port: u16) -> bool {
    Talk::greeted(port).is_ok()
}

fn ask(port: u16, page: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {page} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
