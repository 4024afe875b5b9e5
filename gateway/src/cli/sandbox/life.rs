//! `Life`: one process of the gateway, from its start to its end.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::Folder;
use crate::cli::CliError;

/// How long a gateway may take until it listens.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long it may take to end after SIGTERM: more than its own drain takes.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// A running gateway. It is killed with its owner.
#[derive(Debug)]
pub(in crate::cli) struct Life {
    process: Child,
    began: Instant,
    /// Where it listens, until somebody has taken it.
    address: Option<oneshot::Receiver<SocketAddr>>,
}

impl Life {
    /// Starts a gateway of this very binary, with these variables for its environment.
    ///
    /// # Errors
    /// When the system gives no process.
    pub(in crate::cli) fn start(folder: &Folder, variables: &[(String, String)]) -> Result<Self, CliError> {
        let failed = |error: std::io::Error| CliError::Failed(format!("a gateway cannot be started: {error}"));
        let binary = std::env::current_exe().map_err(failed)?;
        let log = OpenOptions::new().create(true).append(true).open(folder.log()).map_err(failed)?;
        let mut command = Command::new(binary);
        command.arg("serve").arg("--config").arg(folder.config()).current_dir(folder.path());
        // Other settings are those of the folder alone.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GROUPCAST_")) {
            command.env_remove(name);
        }
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        // Ctrl-C in a terminal ends the run, and that ends the gateway; not the other way round.
        command.process_group(0);
        let began = Instant::now();
        let mut process = command.spawn().map_err(failed)?;
        let address = Some(address(&mut process));
        Ok(Self { process, began, address })
    }

    /// Waits until it listens; for ever, if it ends before. To be asked once.
    ///
    /// # Errors
    /// When it takes too long.
    pub(in crate::cli) fn listening(&mut self) -> impl Future<Output = Result<SocketAddr, CliError>> + use<> {
        let address = self.address.take();
        async move {
            let listening = async {
                match address {
                    Some(address) => address.await.ok(),
                    None => None,
                }
            };
            match timeout(START_DEADLINE, listening).await {
                Ok(Some(address)) => Ok(address),
                Ok(None) => std::future::pending().await,
                Err(_) => {
                    let why = format!("a gateway did not listen within {} s", START_DEADLINE.as_secs());
                    Err(CliError::Failed(why))
                }
            }
        }
    }

    /// When it was started.
    pub(in crate::cli) fn began(&self) -> Instant {
        self.began
    }

    /// How it ended, if it has.
    pub(in crate::cli) fn has_ended(&mut self) -> Option<ExitStatus> {
        // It is our child and has not been waited for: an error cannot be, and must not be taken for a life.
        self.process.try_wait().unwrap_or_else(|_| Some(ExitStatus::from_raw(-1)))
    }

    /// Waits until it ends by itself.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(in crate::cli) async fn ended(&mut self) -> ExitStatus {
        loop {
            match self.has_ended() {
                Some(status) => return status,
                None => sleep(LOOK).await,
            }
        }
    }

    /// Has it stand still, as a machine that is suspended, or go on.
    ///
    /// # Errors
    /// When it has ended.
    pub(in crate::cli) fn stand_still(&self, still: bool) -> std::io::Result<()> {
        let signal = if still { Signal::STOP } else { Signal::CONT };
        Ok(kill_process(Pid::from_child(&self.process), signal)?)
    }

    /// Ends it with no chance to do anything.
    pub(in crate::cli) async fn kill(mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        self.ended().await;
    }

    /// Asks it to end, and waits: whether it ended well.
    pub(in crate::cli) async fn stop(mut self) -> Result<(), String> {
        let told = kill_process(Pid::from_child(&self.process), Signal::TERM);
        told.map_err(|error| format!("it cannot be told to stop: {error}"))?;
        match timeout(STOP_DEADLINE, self.ended()).await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("it did not end well: {status}")),
            Err(_) => Err(format!("it did not end within {} s", STOP_DEADLINE.as_secs())),
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Both fail when it has ended and was waited for.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn address(process: &mut Child) -> oneshot::Receiver<SocketAddr> {
    let stdout = process.stdout.take().expect("it is piped");
    let (found, address) = oneshot::channel();
    let mut found = Some(found);
    // Ends with the process: it reads on, so that the gateway never writes to a closed pipe.
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let address =
                line.split_once("http://").and_then(|(_, rest)| rest.trim().trim_end_matches('/').parse().ok());
            if let (Some(address), Some(found)) = (address, found.take_if(|_| address.is_some())) {
                // Who waited may have given up.
                let _ = found.send(address);
            }
        }
    });
    address
}
