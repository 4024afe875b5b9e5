//! `Redis`: a redis-server of a test's own; it has what a test asks for, dies and comes back when the test says so.
//!
//! Tests of the channel layer include this file, with `daemon` and `resp` beside it; it needs nothing else. With
//! `GROUPCAST_TEST_REDIS` in the environment it is another program of the same protocol, such as a valkey-server.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use super::daemon::{Daemon, free_port, in_venv, until};
use super::resp::{Answer, Resp};

/// Settings with which what was acknowledged is on the disk.
pub const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// Names the program that is started as Redis; otherwise `redis-server`.
const PROGRAM_VARIABLE: &str = "GROUPCAST_TEST_REDIS";

/// How long a monitor waits for more before it is done.
const QUIET: Duration = Duration::from_millis(300);

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Redis {
    daemon: Daemon,
    secure_port: Option<u16>,
}

impl Redis {
    /// Starts a server with these arguments (`--maxmemory 10mb` are two), and waits until it answers.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_program(program(), arguments)
    }

    /// Starts a Valkey server instead. Tests that do are named `…valkey…`, and are left out where there is none.
    pub fn start_valkey(arguments: &[&str]) -> Self {
        Self::start_program(in_venv("valkey-server"), arguments)
    }

    /// Starts a server that also talks TLS, with this certificate and key (PEM), on a port of its own.
    pub fn start_secure(certificate: &str, key: &str, arguments: &[&str]) -> Self {
        let mut server = Self::new(program());
        let secure_port = free_port();
        let files = [server.daemon.write("cert.pem", certificate), server.daemon.write("key.pem", key)];
        server.arguments(&["--tls-port", &secure_port.to_string(), "--tls-auth-clients", "no"]);
        server.arguments(&["--tls-cert-file", &files[0], "--tls-key-file", &files[1]]);
        server.arguments(arguments);
        server.secure_port = Some(secure_port);
        server.daemon.start();
        server
    }

    /// A replica of this server, which has what this one has.
    pub fn replica(&self) -> Self {
        let replica = Self::start(&["--replicaof", "127.0.0.1", &self.port().to_string()]);
        replica.eventually(&["INFO", "replication"], "master_link_status:up");
        replica
    }

    /// A sentinel that watches this server under a name; two of them have to agree.
    pub fn sentinel(&self, name: &str) -> Self {
        let watched = self.port();
        let lines = format!(
            "sentinel monitor {name} 127.0.0.1 {watched} 2\nsentinel down-after-milliseconds {name} 500\n\
             sentinel failover-timeout {name} 3000\n"
        );
        let mut sentinel = Self { daemon: Daemon::new(program(), free_port(), answers), secure_port: None };
        // A sentinel keeps its state in its configuration.
        let file = sentinel.daemon.write("sentinel.conf", &lines);
        sentinel.arguments(&[&file]);
        sentinel.listen();
        sentinel.arguments(&["--sentinel"]);
        sentinel.daemon.start();
        sentinel
    }

    fn start_program(program: PathBuf, arguments: &[&str]) -> Self {
        let mut server = Self::new(program);
        server.arguments(arguments);
        server.daemon.start();
        server
    }

    fn new(program: PathBuf) -> Self {
        let mut server = Self { daemon: Daemon::new(program, free_port(), answers), secure_port: None };
        server.listen();
        server
    }

    fn listen(&mut self) {
        let (port, folder) = (self.port().to_string(), self.daemon.folder().to_string_lossy().into_owned());
        self.arguments(&["--port", &port, "--bind", "127.0.0.1", "--dir", &folder, "--save", ""]);
    }

    fn arguments(&mut self, arguments: &[&str]) {
        self.daemon.arguments(arguments.iter().copied());
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.daemon.port()
    }

    /// Where it is.
    pub fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Where it is for a user.
    pub fn address_of(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}", self.port())
    }

    /// Where it talks TLS.
    pub fn secure_address(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.secure_port.expect("it was started with a certificate"))
    }

    /// Makes a user, with rights as `ACL SETUSER` takes them: `~prefix:* &* +@all -@admin`. A restart forgets him.
    #[track_caller]
    pub fn add_user(&self, user: &str, password: &str, rights: &str) {
        let password = format!(">{password}");
        let words: Vec<&str> =
            ["ACL", "SETUSER", user, "on", &password].into_iter().chain(rights.split_whitespace()).collect();
        assert_eq!(self.ask(&words), Answer::Status("OK".to_owned()));
    }

    /// Ends it without a word (`kill -9`).
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again, on its port and with what it has kept.
    pub fn restart(&mut self) {
        self.daemon.start();
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
    pub fn connect(&self) -> Resp {
        Resp::connect(self.port()).expect("it listens")
    }

    /// Runs a command on a connection of its own.
    #[track_caller]
    pub fn ask(&self, words: &[impl AsRef<[u8]>]) -> Answer {
        self.connect().command(words).expect("it answers")
    }

    /// Runs a command; all that it says, a line each.
    #[track_caller]
    pub fn command(&self, words: &[&str]) -> String {
        self.ask(words).lines()
    }

    /// Shows all commands from here on.
    pub fn monitor(&self) -> Monitor {
        let mut connection = self.connect();
        connection.command(&["MONITOR"]).expect("it answers");
        Monitor(connection)
    }

    /// Waits until a command's answer has a text in it.
    #[track_caller]
    pub fn eventually(&self, words: &[&str], text: &str) {
        until(&format!("{words:?} says {text}"), || self.command(words).contains(text));
    }
}

/// The commands that a server is given.
#[derive(Debug)]
pub struct Monitor(Resp);

impl Monitor {
    /// The next command, as it is shown.
    #[track_caller]
    pub fn command(&mut self) -> String {
        self.0.answer().expect("a command is shown").text()
    }

    /// What has been shown, a line for each command.
    pub fn end(mut self) -> String {
        self.0.patience(QUIET).expect("it can be set");
        let mut shown = String::new();
        while let Ok(command) = self.0.answer() {
            shown += &(command.text() + "\n");
        }
        shown
    }
}

fn program() -> PathBuf {
    env::var_os(PROGRAM_VARIABLE).map_or_else(|| "redis-server".into(), PathBuf::from)
}

/// Whether it is up and has read what it keeps.
fn answers(port: u16) -> bool {
    let pong = Resp::connect(port).and_then(|mut connection| connection.command(&["PING"]));
    // A server of whom something else is the matter is there all the same.
    pong.is_ok_and(|said| !matches!(said, Answer::Error(why) if why.starts_with("LOADING")))
}
