//! `Daemon`: a server program of a test's own, on ports of its own, in a folder of its own, ended by its process id.
//!
//! It ends with its owner, and also when the process of the tests is killed: a shell stands by and waits for that. Tests
//! of other crates include this file, so it stands on the standard library and `tempfile` alone.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to do what it is asked.
pub const SOON: Duration = Duration::from_secs(20);

/// The end of its input means that nobody is left to end the server.
const GUARD: &str = r#"read -r _ || { kill -KILL "$1"; while kill -0 "$1"; do sleep 0.01; done; rm -rf "$2"; } 2>&-"#;

/// Ports that the system gives to nobody by itself: one that was free stays free, also while its server is dead.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A server. It ends with its owner.
#[derive(Debug)]
pub struct Daemon {
    program: PathBuf,
    arguments: Vec<String>,
    folder: TempDir,
    answers: fn(u16) -> bool,
    port: u16,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    process: Child,
    guard: Child,
    // The guard's input, held open until the guard has ended.
    _word: ChildStdin,
}

impl Daemon {
    /// A program that is not started yet, in an empty folder. It is there as soon as `answers` says so of the port.
    pub fn new(program: impl Into<PathBuf>, port: u16, answers: fn(u16) -> bool) -> Self {
        let folder = tempfile::Builder::new().prefix("groupcast-server-").tempdir();
        let folder = folder.expect("the system has a folder for temporary files");
        Self { program: program.into(), arguments: Vec::new(), folder, answers, port, running: None }
    }

    /// What the program is started with.
    pub fn arguments(&mut self, arguments: impl IntoIterator<Item = impl Into<String>>) {
        self.arguments.extend(arguments.into_iter().map(Into::into));
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Writes a file in its folder; where it is.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder().join(name);
        fs::write(&path, text).expect("the folder can be written");
        path.to_string_lossy().into_owned()
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    /// Starts it, for the first time or again; it answers when this returns.
    pub fn start(&mut self) {
        let until = Instant::now() + SOON;
        assert!(self.running.is_none(), "it runs");
        self.running = Some(self.spawn());
        while !(self.answers)(self.port) {
            assert!(Instant::now() < until, "{} does not answer:\n{}", self.program.display(), self.log());
            if self.has_ended() {
                // What the one before held may not be free yet.
                self.kill();
                self.running = Some(self.spawn());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it (`kill -9`).
    pub fn kill(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        // The guard first, while its input is open: it must not kill whoever gets the number next.
        let _ = running.guard.kill();
        let _ = running.guard.wait();
        let _ = running.process.kill();
        running.process.wait().expect("it is a child of ours");
    }

    /// Asks it to end (`SIGTERM`), and waits until it has.
    pub fn terminate(&mut self) {
        self.signal("TERM");
        let until = Instant::now() + SOON;
        while !self.has_ended() {
            assert!(Instant::now() < until, "{} does not end:\n{}", self.program.display(), self.log());
            thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }

    /// Stops its process where it is: it holds its connections and says nothing.
    pub fn stop(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn cont(&self) {
        self.signal("CONT");
    }

    /// Whether its process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        let Some(running) = &mut self.running else { return true };
        running.process.try_wait().expect("it is a child of ours").is_some()
    }

    fn signal(&self, name: &str) {
        let id = self.running.as_ref().expect("it runs").process.id().to_string();
        let sent = Command::new("kill").args([format!("-{name}"), id]).status().expect("kill can be started");
        assert!(sent.success(), "no signal {name} to {}", self.program.display());
    }

    fn spawn(&self) -> Running {
        let log = || File::options().create(true).append(true).open(self.folder().join("log"));
        let log = || log().expect("the folder can be written");
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(self.folder());
        let started = command.stdin(Stdio::null()).stdout(log()).stderr(log()).spawn();
        let missing = |error| panic!("{}: {error}; `./tests/run --only tools` installs it", self.program.display());
        let process = started.unwrap_or_else(missing);
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard", &process.id().to_string()]).arg(self.folder());
        let mut guard = guard.stdin(Stdio::piped()).spawn().expect("there is a shell");
        let word = guard.stdin.take().expect("it is piped");
        Running { process, guard, _word: word }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // `SIGKILL` ends a stopped process, too.
        self.kill();
    }
}

/// A port that is free, and that no other caller in this process gets.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Processes of tests begin at different places.
    let first = (std::process::id() as u16).wrapping_mul(41);
    for _ in PORTS {
        let turn = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + turn % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free")
}

/// A program of the tests' environment of Python, which `./tests/run --only tools` makes.
pub fn in_venv(program: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/.venv/bin").join(program)
}

/// Looks again and again until something is so; panics with what was awaited when it is not.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not within {} s", SOON.as_secs());
        thread::sleep(Duration::from_millis(20));
    }
}
