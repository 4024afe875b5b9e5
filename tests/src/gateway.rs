//! `Gateway`: the real binary as a process, from its start to its end by process id.

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::home::Home;
use crate::http::Http;
use crate::kernel::{self, Usage};
use crate::wait::{eventually, within};

/// Names a binary that is built with the feature `kill-points`; otherwise the debug build beside the tests is taken.
pub const KILL_POINTS_VARIABLE: &str = "GROUPCAST_BIN_KILL_POINTS";

/// Names the binary under test; otherwise the newest one beside the test's own is taken.
pub const BINARY_VARIABLE: &str = "GROUPCAST_BIN";

/// No gateway under test lives longer, so no test does.
const LIFETIME: Duration = Duration::from_secs(120);
/// How long the checks go on that can go on for hours; the suite's own default is short.
const CHECK_VARIABLE: &str = "GROUPCAST_CHECK_SECONDS";

/// Lines of output that a failed test shows.
const SHOWN_LINES: usize = 60;

/// A running gateway. It ends with its owner.
#[derive(Debug)]
pub struct Gateway {
    home: Arc<Home>,
    process: Process,
    address: SocketAddr,
    /// What it shows, if it talks TLS.
    certificate: Option<String>,
}

impl Gateway {
    /// Starts a gateway with this configuration in a folder of its own; it is ready when this returns.
    pub async fn start(config: &str) -> Self {
        Self::start_in(Arc::new(Home::new(config))).await
    }

    /// Starts a gateway that talks TLS, with a certificate of its own.
    pub async fn start_secure(config: &str) -> Self {
        let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a name is all it needs");
        let home = Home::new(&format!("{config}\n[server.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n"));
        home.write("cert.pem", &pair.cert.pem());
        home.write("key.pem", &pair.signing_key.serialize_pem());
        let serve = serve(&home);
        Self::ready(Arc::new(home), serve, Some(pair.cert.pem())).await
    }

    /// Starts a gateway in a folder.
    pub async fn start_in(home: Arc<Home>) -> Self {
        let serve = serve(&home);
        Self::ready(home, serve, None).await
    }

    /// Starts an example program of the gateway, which takes a configuration and serves it.
    pub async fn start_example(name: &str, home: Arc<Home>) -> Self {
        let command = example(name, &home);
        Self::ready(home, command, None).await
    }

    /// Starts a gateway that is not going to be ready: it answers when this returns.
    pub async fn start_unready(config: &str) -> Self {
        let home = Arc::new(Home::new(config));
        let mut process = Process::spawn(serve(&home));
        let address = process.address().await;
        Self { home, process, address, certificate: None }
    }

    async fn ready(home: Arc<Home>, serve: Command, certificate: Option<String>) -> Self {
        let mut process = Process::spawn(serve);
        let address = process.address().await;
        let http = client(address, certificate.as_deref());
        let asked = || async { http.try_get("/readyz").await.filter(|reply| reply.status == 200) };
        eventually("the gateway is ready", asked).await;
        Self { home, process, address, certificate }
    }

    /// Starts a gateway that may open only so many files, sockets among them.
    pub async fn start_with_files(config: &str, files: u32) -> Self {
        let home = Arc::new(Home::new(config));
        let serve = serve(&home);
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--nofile={files}:{files}")).arg(serve.get_program()).args(serve.get_args());
        limited.current_dir(home.path()).stdin(Stdio::null());
        for (name, _) in serve.get_envs().filter(|(_, value)| value.is_none()) {
            limited.env_remove(name);
        }
        Self::ready(home, limited, None).await
    }

    /// Starts a gateway that is expected to refuse: its exit code and all it printed.
    pub async fn refused(home: &Home) -> (Option<i32>, String) {
        let mut process = Process::spawn(serve(home));
        let status = process.ended().await;
        (status.code(), process.printed())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its folder.
    pub fn home(&self) -> &Arc<Home> {
        &self.home
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        pid(&self.process.child)
    }

    /// What it has used so far.
    pub fn usage(&self) -> Usage {
        kernel::usage(pid(&self.process.child))
    }

    /// A client of it.
    pub fn http(&self) -> Http {
        client(self.address, self.certificate.as_deref())
    }

    /// A client of the address for operators, which it prints after the other one.
    pub async fn operators(&self) -> Http {
        let said = || async {
            let printed = self.printed();
            let line = printed.lines().find(|line| line.starts_with("operators are served on "))?;
            Some(client(address_in(line)?, self.certificate.as_deref()))
        };
        eventually("the address for operators is printed", said).await
    }

    /// Ends it with no chance to say goodbye (`kill -9`).
    pub async fn kill(mut self) -> Arc<Home> {
        self.process.signal(Signal::KILL);
        self.process.ended().await;
        self.home.clone()
    }

    /// Asks it to end, without waiting for it.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Has it read its configuration again.
    pub fn hang_up(&self) {
        self.process.signal(Signal::HUP);
    }

    /// Stops it where it is, as a machine does that is out of memory.
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Presses Ctrl-C, without waiting for the end.
    pub fn interrupt(&self) {
        self.process.signal(Signal::INT);
    }

    /// Waits until it has ended by itself: its exit code (`None`: by a signal).
    pub async fn ended(mut self) -> (Option<i32>, Arc<Home>) {
        let status = self.process.ended().await;
        (status.code(), self.home.clone())
    }

    /// All it has printed so far.
    pub fn printed(&self) -> String {
        self.process.printed()
    }
}

/// How long a check goes on: so many seconds, or as many as `GROUPCAST_CHECK_SECONDS` says.
pub fn check_time(default_seconds: u64) -> Duration {
    let wished = env::var(CHECK_VARIABLE).ok().map(|text| text.parse().expect("a number of seconds"));
    Duration::from_secs(wished.unwrap_or(default_seconds))
}

/// The binary under test.
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os(BINARY_VARIABLE) {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "{BINARY_VARIABLE} is {}, and there is no file; build it or unset it", path.display());
        return path;
    }
    let built = ["debug", "release"].map(built);
    let newest = built.into_iter().filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path))).max();
    let missing = "no `groupcast` beside the tests; run `cargo build` or name one with GROUPCAST_BIN";
    newest.expect(missing).1
}

/// The binary of a profile, which lies beside the tests.
fn built(profile: &str) -> PathBuf {
    // target/debug/deps/it-0123456789abcdef
    let own = env::current_exe().expect("a running program has a path");
    let target = own.ancestors().nth(3).expect("a test lies in target/PROFILE/deps");
    target.join(profile).join("groupcast")
}

/// A binary that can kill itself at named places, as a command in a folder.
pub fn groupcast_with_kill_points(home: &Home, arguments: &[&str]) -> Command {
    let path = env::var_os(KILL_POINTS_VARIABLE).map_or_else(|| built("debug"), PathBuf::from);
    let missing = "build one with `cargo build --workspace --all-features --bins`";
    assert!(path.is_file(), "no file {} for {KILL_POINTS_VARIABLE}; {missing}", path.display());
    command(path, home, arguments)
}

/// The binary as a command in a folder, free of settings from the environment of the test.
pub fn groupcast(home: &Home, arguments: &[&str]) -> Command {
    command(binary(), home, arguments)
}

fn command(binary: PathBuf, home: &Home, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GROUPCAST_")) {
        command.env_remove(name);
    }
    command.args(arguments).current_dir(home.path()).stdin(Stdio::null());
    command
}

/// An example program of the gateway, which takes a configuration and serves it, as a command in a folder.
pub fn example(name: &str, home: &Home) -> Command {
    let built = binary().with_file_name("examples").join(name);
    assert!(built.is_file(), "there is no {}; run `cargo build --example {name}`", built.display());
    let mut command = Command::new(built);
    command.arg(home.config()).current_dir(home.path()).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub async fn run(mut command: Command) -> Output {
    let ended = spawn_blocking(move || command.output().expect("the binary can be started"));
    within("the command ends", ended).await.expect("the command's thread does not panic")
}

fn client(address: SocketAddr, certificate: Option<&str>) -> Http {
    match certificate {
        None => Http::new(address),
        Some(certificate) => Http::secure(address, certificate),
    }
}

fn serve(home: &Home) -> Command {
    let config = home.config();
    groupcast(home, &["serve", "--config", &config.to_string_lossy()])
}

/// A process whose output is kept.
#[derive(Debug)]
pub struct Process {
    child: Child,
    printed: Arc<Mutex<Vec<String>>>,
    address: watch::Receiver<Option<SocketAddr>>,
    readers: Vec<JoinHandle<()>>,
    /// Dropped before the process is waited for, so that its id is never signalled after that.
    watchdog: Option<SyncSender<()>>,
}

impl Process {
    /// Starts a process.
    pub fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary can be started");
        let printed = Arc::default();
        let (found, address) = watch::channel(None);
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let readers = vec![keep(stdout, &printed, Some(found)), keep(stderr, &printed, None)];
        let watchdog = Some(watch_over(pid(&child)));
        Self { child, printed, address, readers, watchdog }
    }

    /// The address that it prints; `None` when it ends without.
    pub async fn started(&mut self) -> Option<SocketAddr> {
        let found = within("an address is printed, or the end", self.address.wait_for(Option::is_some)).await;
        found.ok().and_then(|found| *found)
    }

    /// The address that it prints.
    pub async fn address(&mut self) -> SocketAddr {
        let started = self.started().await;
        started.unwrap_or_else(|| panic!("the gateway ended before it told its address:\n{}", self.printed()))
    }

    /// All it has printed so far.
    pub fn printed(&self) -> String {
        self.printed.lock().expect("no reader panics").join("\n")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(pid(&self.child), signal).expect("it has not been waited for, so its id is its own");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let look = || {
            let ended = self.child.try_wait().expect("it is a child of ours");
            std::future::ready(ended)
        };
        let status = eventually("the process ends", look).await;
        self.watchdog = None;
        // What it has said last is read, too.
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.watchdog = None;
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if thread::panicking() {
            let shown = &printed[printed.len().saturating_sub(SHOWN_LINES)..];
            eprintln!("--- the gateway's last lines ---\n{}\n---", shown.join("\n"));
            return;
        }
        // Whatever a test is about: the gateway has no business to panic.
        let panicked: Vec<&String> = printed.iter().filter(|line| line.contains("panicked at")).collect();
        assert!(panicked.is_empty(), "the gateway panicked: {panicked:?}");
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Ends a process that lives too long; every wait of its test fails then.
fn watch_over(pid: Pid) -> SyncSender<()> {
    let (alive, ended) = sync_channel(0);
    let lifetime = LIFETIME + check_time(0);
    thread::spawn(move || {
        if let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(lifetime) {
            eprintln!("a gateway under test lived longer than {} s and is ended", lifetime.as_secs());
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    alive
}

fn keep(
    stream: impl Read + Send + 'static,
    printed: &Arc<Mutex<Vec<String>>>,
    found: Option<watch::Sender<Option<SocketAddr>>>,
) -> JoinHandle<()> {
    let printed = Arc::clone(printed);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let address = address_in(&line);
            printed.lock().expect("no reader panics").push(line);
            // Who waits for it finds the line printed.
            if let (Some(found), Some(address)) = (&found, address) {
                found.send_if_modified(|known| {
                    let is_first = known.is_none();
                    known.get_or_insert(address);
                    is_first
                });
            }
        }
    })
}

/// The address of the first `http://IP:PORT` or `https://IP:PORT` in a line.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://").or_else(|| line.split_once("https://"))?;
    let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c))).unwrap_or(rest.len());
    rest[..end].trim_end_matches('.').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::address_in;

    #[test]
    fn an_address_is_found_in_a_line() {
        let port = |line| address_in(line).map(|address| address.port());
        assert_eq!(port("groupcast listens on http://127.0.0.1:45123/"), Some(45123));
        assert_eq!(port("open https://[::1]:8000."), Some(8000));
        assert_eq!(port("no address: http://example.org/"), None);
    }
}
