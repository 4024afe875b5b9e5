//! `--spawn`: a gateway of this very binary as a process of its own, so that its figures are its own.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::cli::CliError;

const START_DEADLINE: Duration = Duration::from_secs(20);

/// A gateway for one run. It ends with its owner.
#[derive(Debug)]
pub(super) struct Spawned {
    process: Child,
    url: String,
    folder: PathBuf,
}

impl Spawned {
    /// Starts it and waits until it listens. Settings of the environment hold for it, too.
    pub(super) fn start(connections: u32) -> Result<Self, CliError> {
        let failed = |why: String| CliError::Failed(format!("a gateway for the run cannot be started: {why}"));
        let binary = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
        let folder = std::env::temp_dir().join(format!("groupcast-bench-{}", std::process::id()));
        let mut command = Command::new(binary);
        command.args(["serve", "--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::piped());
        command.env("GROUPCAST_SERVER__DATA_DIR", &folder);
        // Ctrl-C in a terminal ends the measurement, and that ends the gateway; not the other way round.
        command.process_group(0);
        // Some above what is needed: publishers, and somebody who looks at it meanwhile.
        let room = (u64::from(connections) + 2000).max(10_000).to_string();
        let settings = [
            ("GROUPCAST_SERVER__LOG", "warn"),
            ("GROUPCAST_LIMITS__CONNECTIONS", room.as_str()),
            ("GROUPCAST_LIMITS__CONNECTIONS_PER_ADDRESS", room.as_str()),
        ];
        for (name, value) in settings.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()) {
            command.env(name, value);
        }
        let process = command.spawn().map_err(|e| failed(e.to_string()))?;
        let mut spawned = Self { process, url: String::new(), folder };
        spawned.url = spawned.address().map_err(failed)?;
        Ok(spawned)
    }

    /// Where it listens.
    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    fn address(&mut self) -> Result<String, String> {
        let stdout = self.process.stdout.take().expect("it is piped");
        let (found, address) = sync_channel(1);
        // Ends with the process: it reads on, so that the gateway never writes to a closed pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(at) = line.find("http://") {
                    // Only the first one is waited for.
                    drop(found.try_send(line[at..].trim().to_owned()));
                }
            }
        });
        address.recv_timeout(START_DEADLINE).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("it did not listen within {} s", START_DEADLINE.as_secs()),
            RecvTimeoutError::Disconnected => "it ended before it listened; its reason stands above".to_owned(),
        })
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // It keeps nothing, so there is nothing to drain. It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
        // Absent when the gateway stored nothing.
        drop(std::fs::remove_dir_all(&self.folder));
    }
}
