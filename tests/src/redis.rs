//! A redis-server of a test's own: on a free port, in a folder of its own, ended by its process id.
//!
//! The tests of the channel layer include this file, so it stands on the standard library alone.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    folder: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
}

const SOON: Duration = Duration::from_secs(20);

impl Redis {
    /// Starts a server with these arguments, and waits until it answers.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_as(arguments.iter().map(ToString::to_string).collect(), |_| Vec::new())
    }

    /// A sentinel that watches this server under a name.
    pub fn sentinel(&self, name: &str) -> Self {
        let watched = self.port;
        let lines = format!(
            "sentinel monitor {name} 127.0.0.1 {watched} 2\nsentinel down-after-milliseconds {name} 500\n\
             sentinel failover-timeout {name} 3000\n"
        );
        Self::start_as(vec!["--sentinel".to_owned()], move |folder| {
            // A sentinel keeps its state in its configuration.
            let file = folder.path().join("sentinel.conf");
            std::fs::write(&file, &lines).expect("the folder can be written");
            vec![file.display().to_string()]
        })
    }

    fn start_as(arguments: Vec<String>, file: impl Fn(&TempDir) -> Vec<String>) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let arguments = file(&folder).into_iter().chain(arguments).collect();
        let mut server = Self { port, folder, arguments, process: None };
        server.restart();
        server
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it is.
    pub fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().and_then(|()| process.wait()).expect("it is ours");
        }
    }

    /// Starts it again, with what it has kept.
    pub fn restart(&mut self) {
        let folder = self.folder.path().display().to_string();
        let port = self.port.to_string();
        let mut command = Command::new("redis-server");
        // Options behind the file, if there is one.
        let (file, options): (Vec<_>, Vec<_>) = self.arguments.iter().partition(|argument| argument.ends_with(".conf"));
        command.args(file).args(["--port", &port, "--bind", "127.0.0.1", "--dir", &folder, "--save", ""]).args(options);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.process = Some(process.expect("redis-server can be started; `./tests/run --only tools` installs it"));
        let end = Instant::now() + SOON;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < end, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops its process: it holds its connections and says nothing.
    pub fn stop(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn cont(&self) {
        self.signal("CONT");
    }

    /// Runs a command; gives the raw answer.
    pub fn command(&self, words: &[&str]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("it can be set");
        let mut request = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| request += &format!("${}\r\n{word}\r\n", word.len()));
        stream.write_all(request.as_bytes()).expect("it takes a command");
        let (mut answer, mut part) = (Vec::new(), [0; 65536]);
        // Until the whole answer of one line, or nothing more comes.
        while let Ok(read @ 1..) = stream.read(&mut part) {
            answer.extend_from_slice(&part[..read]);
            if matches!(answer[0], b'+' | b'-' | b':') && answer.ends_with(b"\r\n") {
                break;
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Shows all commands from here on.
    pub fn monitor(&self) -> Monitor {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.write_all(b"MONITOR\r\n").expect("it takes a command");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("it answers");
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("it can be set");
        Monitor(stream)
    }

    /// Waits until a command's answer has a text in it.
    pub fn eventually(&self, words: &[&str], text: &str) {
        let end = Instant::now() + SOON;
        loop {
            let answer = self.command(words);
            if answer.contains(text) {
                return;
            }
            assert!(Instant::now() < end, "{words:?} never says {text}: {answer}");
        }
    }

    fn signal(&self, name: &str) {
        let id = self.process.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([format!("-{name}"), id]).status().expect("kill can be started");
        assert!(sent.success());
    }
}

/// The commands that a server is given.
pub struct Monitor(TcpStream);

impl Monitor {
    /// What has been shown, a line for each command.
    pub fn end(mut self) -> String {
        let (mut shown, mut part) = (Vec::new(), [0; 65536]);
        while let Ok(read @ 1..) = self.0.read(&mut part) {
            shown.extend_from_slice(&part[..read]);
        }
        String::from_utf8_lossy(&shown).into_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.signal("CONT");
        }
        self.kill();
    }
}
