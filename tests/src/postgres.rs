//! `Postgres`: a real PostgreSQL server of a test's own, on a Unix socket in a folder of its own.
//!
//! It is stopped and its folder removed when its owner goes, and also when the process of the tests dies: a shell stands
//! between the two and waits for the end of its standard input. PostgreSQL refuses to run as root, so the server of a test
//! that runs as root belongs to `postgres`, or else to `nobody`.
//!
//! The unit tests of the gateway include this file, so it uses nothing but the standard library and `tempfile`.

use std::fs::{self, Permissions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// PostgreSQL's own; without TCP no more than a part of the socket's name.
const PORT: u16 = 5432;

/// How long the server may take to start or to stop.
const DEADLINE: Duration = Duration::from_secs(60);

/// A server that is not there after so long has ended; another try may be luckier.
const GIVEN_UP: Duration = Duration::from_secs(3);

/// The word on standard input is the signal that ends the server; no word at all means that nobody needs it again.
const GUARD: &str = r#"
"$@" >>log 2>&1 &
server=$!
read -r signal
kill -"${signal:-INT}" "$server"
wait "$server" 2>>log
[ -n "$signal" ] || rm -rf "$PWD"
"#;

/// A small server, so that many fit. It syncs: the gateway believes no other.
const SETTINGS: [&str; 6] = [
    "listen_addresses=",
    "max_connections=300",
    "shared_buffers=32MB",
    "max_wal_size=64MB",
    "log_min_messages=warning",
    "log_line_prefix=%m [%p] ",
];

/// A server. It ends with its owner.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    settings: Vec<String>,
    /// The name of its socket, and where it listens if it does.
    port: u16,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    guard: Child,
    word: ChildStdin,
}

impl Postgres {
    /// The one server of this test binary, for tests that need no more than a database of their own in it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts a server; it takes connections when this returns.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with further settings, such as `fsync=off`.
    pub fn start_with(settings: &[&str]) -> Self {
        let mut server = Self::prepare(settings, PORT);
        server.restart();
        server
    }

    /// Starts a server that speaks TLS on a free port of loopback, with a certificate and its key (PEM).
    pub fn start_with_tls(certificate: &str, key: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("there is a port left").port();
        let (listen, port_setting) = ("listen_addresses=127.0.0.1", format!("port={port}"));
        let mut server = Self::prepare(&[listen, &port_setting, "ssl=on"], port);
        server.give("data/server.crt", certificate);
        server.give("data/server.key", key);
        server.restart();
        server
    }

    /// The port of a server that speaks TLS.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn prepare(settings: &[&str], port: u16) -> Self {
        let programs = programs();
        let folder = tempfile::Builder::new().prefix("groupcast-pg-").tempdir();
        let folder = folder.expect("the system has a folder for temporary files").keep();
        if let Some((user, group)) = account() {
            chown(&folder, Some(user), Some(group)).expect("root may give a folder away");
        }
        let settings = SETTINGS.iter().chain(settings).map(|setting| (*setting).to_owned()).collect();
        let server = Self { programs, folder, settings, port, running: None };
        server.create();
        server
    }

    /// Writes a file that nobody but the server may read.
    fn give(&self, name: &str, content: &str) {
        let path = self.folder.join(name);
        fs::write(&path, content).expect("the folder is there");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it was just written");
        if let Some((user, group)) = account() {
            chown(&path, Some(user), Some(group)).expect("root may give a file away");
        }
    }

    /// The address of the database `postgres`.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Makes a database; its address.
    pub fn database(&self) -> String {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let name = format!("test{}", MADE.fetch_add(1, Ordering::Relaxed));
        self.query(&format!("create database {name}"));
        self.url_of(&name)
    }

    /// Runs statements in the database `postgres`; what they print, columns apart by `|`.
    pub fn query(&self, sql: &str) -> String {
        self.query_in(&self.url(), sql)
    }

    /// Runs statements in the database of an address.
    pub fn query_in(&self, url: &str, sql: &str) -> String {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]);
        let output = psql.stdin(Stdio::null()).output().expect("psql can be started");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Stops the server in good order; connections are cut.
    pub fn stop(&mut self) {
        self.end("INT");
    }

    /// Kills the server (`kill -9`): what it had not given to the system is lost.
    pub fn kill(&mut self) {
        self.end("KILL");
    }

    /// Starts the server again after [`Postgres::stop`] or [`Postgres::kill`]; it takes connections when this returns.
    pub fn restart(&mut self) {
        let began = Instant::now();
        while !self.try_start(began + DEADLINE) {
            // Processes of a server that was killed may still hold its memory.
            assert!(began.elapsed() < DEADLINE, "PostgreSQL does not start:\n{}", self.log());
        }
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn create(&self) {
        let mut initdb = self.command("initdb");
        initdb.args(["--pgdata=data", "--username=postgres", "--auth=trust"]);
        initdb.args(["--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"]);
        let output = initdb.stdin(Stdio::null()).output().expect("initdb can be started");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Whether it takes connections; if not, it has ended.
    fn try_start(&mut self, until: Instant) -> bool {
        let mut guard = as_account(Command::new("sh"));
        guard.args(["-c", GUARD, "guard"]).arg(self.programs.join("postgres")).args(["-D", "data", "-k"]);
        guard.arg(&self.folder);
        guard.args(self.settings.iter().flat_map(|setting| ["-c", setting]));
        guard.current_dir(&self.folder).stdin(Stdio::piped());
        let mut guard = guard.spawn().expect("there is a shell");
        let word = guard.stdin.take().expect("it is piped");
        self.running = Some(Running { guard, word });
        let began = Instant::now();
        while Instant::now() < until {
            if self.answers() {
                return true;
            }
            if began.elapsed() > GIVEN_UP && !self.is_alive() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        // It may be so young that it hears no other signal.
        self.kill();
        false
    }

    /// Whether the process that its file names is there.
    fn is_alive(&self) -> bool {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
        file.lines().next().is_some_and(|pid| Path::new("/proc").join(pid).exists())
    }

    fn answers(&self) -> bool {
        let mut ask = Command::new(self.programs.join("pg_isready"));
        ask.args(["-q", "-t", "5", "-U", "postgres", "-p", &self.port.to_string(), "-h"]).arg(&self.folder);
        ask.status().is_ok_and(|status| status.success())
    }

    fn end(&mut self, signal: &str) {
        let Some(Running { mut guard, mut word }) = self.running.take() else { return };
        // It may have ended by itself.
        let _ = writeln!(word, "{signal}");
        drop(word);
        wait(&mut guard);
    }

    fn url_of(&self, database: &str) -> String {
        let folder = self.folder.to_string_lossy().replace('/', "%2F");
        format!("postgres://postgres@{folder}:{}/{database}", self.port)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = as_account(Command::new(self.programs.join(program)));
        command.current_dir(&self.folder);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        match self.running.take() {
            Some(Running { mut guard, word }) => {
                drop(word);
                wait(&mut guard);
            }
            None => drop(fs::remove_dir_all(&self.folder)),
        }
    }
}

fn wait(guard: &mut Child) {
    let until = Instant::now() + DEADLINE;
    while !matches!(guard.try_wait(), Ok(Some(_)) | Err(_)) {
        assert!(Instant::now() < until, "PostgreSQL does not stop");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Where `initdb` and `postgres` lie: Debian keeps them out of the path, by version.
fn programs() -> PathBuf {
    let has_all = |folder: &Path| ["initdb", "postgres", "psql"].iter().all(|name| folder.join(name).is_file());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).find(|folder| has_all(folder));
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    let found = in_path.or_else(|| versions.into_iter().rev().find(|folder| has_all(folder)));
    found.expect("PostgreSQL is not installed; `./tests/run --only tools` does it, or `apt-get install postgresql`")
}

/// Who the server belongs to, if not to us.
fn account() -> Option<(u32, u32)> {
    let is_root = fs::metadata("/proc/self").ok()?.uid() == 0;
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    let find = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2).map_while(|number| number.parse().ok());
        Some((numbers.next()?, numbers.next()?))
    };
    is_root.then(|| find("postgres").or_else(|| find("nobody"))).flatten()
}

fn as_account(mut command: Command) -> Command {
    if let Some((user, group)) = account() {
        command.uid(user).gid(group);
    }
    command
}
