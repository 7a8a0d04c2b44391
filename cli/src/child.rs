//! Child processes of a command: a server of its own, and workers.
//!
//! All are this same program. They are killed when the value that stands for them is dropped, and the
//! kernel ends them when this process ends without dropping anything.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::control::Control;
use crate::parent::ParentArguments;
use crate::process::{self, Worker};
use crate::{Failure, drain, output};

/// How long a server may take to load its models.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a server that starts is looked at.
const READY_INTERVAL: Duration = Duration::from_millis(5);
/// How long an idle server may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// This program, as another process that ends with this one.
fn command(subcommand: &str) -> Command {
    let mut command = process::this_program("adjoin", subcommand);
    command.arg(ParentArguments::flag());
    command
}

/// A worker of this command.
pub(crate) fn worker(subcommand: &str) -> Result<Worker, Failure> {
    Worker::start(command(subcommand))
}

/// A directory for a server: `models` is its repository, to be filled by whoever makes it.
#[derive(Debug)]
pub(crate) struct ServerHome {
    directory: TempDir,
}

impl ServerHome {
    pub(crate) fn new() -> Result<Self, Failure> {
        let directory = tempfile::Builder::new().prefix("adjoin-").tempdir();
        let directory =
            directory.map_err(|error| format!("cannot make a temporary directory: {error}"))?;
        let home = Self { directory };
        std::fs::create_dir(home.models())?;
        Ok(home)
    }

    /// The model repository.
    pub(crate) fn models(&self) -> PathBuf {
        self.directory.path().join("models")
    }

    pub(crate) fn socket_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }
}

/// A server that belongs to this process, with everything it needs in a directory that goes with it.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    // Dropped in this order: first the process, then what it uses.
    child: Child,
    home: ServerHome,
}

impl ServerProcess {
    /// Starts a server and waits until it serves.
    pub(crate) async fn start(
        home: ServerHome,
        config: &toml::Table,
        onnxruntime: Option<&Path>,
    ) -> Result<Self, Failure> {
        let config_file = home.directory.path().join("adjoin.toml");
        std::fs::write(&config_file, config.to_string())?;
        let mut command = command("serve");
        command.arg("--model-repository").arg(home.models());
        command.arg("--socket-dir").arg(home.socket_dir());
        command.arg("--config").arg(config_file);
        if let Some(library) = onnxruntime {
            command.arg("--onnxruntime").arg(library);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(home.log())?);
        let child = command
            .spawn()
            .map_err(|error| format!("cannot start a server: {error}"))?;
        let mut server = Self { child, home };
        server.wait_until_ready().await?;
        Ok(server)
    }

    pub(crate) fn socket_dir(&self) -> PathBuf {
        self.home.socket_dir()
    }

    async fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let give_up = Instant::now() + READY_TIMEOUT;
        // It listens when its models are loaded.
        while Control::connect(&self.home.socket_dir()).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(
                    format!("the server did not start ({status}): {}", self.last_words()).into(),
                );
            }
            if Instant::now() > give_up {
                let limit = READY_TIMEOUT.as_secs();
                return Err(format!(
                    "the server was not ready within {limit} s: {}",
                    self.last_words()
                )
                .into());
            }
            sleep(READY_INTERVAL).await;
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.home.log()).unwrap_or_default();
        reason_in(&log)
    }

    /// Drains the server and waits for its end, which must be a good one.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        drain::drain(&self.home.socket_dir()).await?;
        let ended = timeout(END_TIMEOUT, self.child.wait()).await;
        let status = ended
            .map_err(|_| format!("the server did not end within {} s", END_TIMEOUT.as_secs()))??;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the server ended with {status}: {}", self.last_words()).into())
        }
    }
}

/// What a server's log says of the reason for its end: its last error, or else its last line.
fn reason_in(log: &str) -> String {
    let error = log
        .lines()
        .rev()
        .find_map(|line| Some(line.split_once(" ERROR ")?.1));
    let last = || {
        log.lines()
            .last()
            .map(|line| line.trim_start_matches("adjoin: "))
    };
    output::one_line(error.or_else(last).unwrap_or("its log is empty"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_the_last_error_or_the_last_line() {
        let log = "2026-01-01T00:00:00Z  INFO start\n2026-01-01T00:00:00Z ERROR cannot load a=1\nadjoin: none\n";
        assert_eq!(reason_in(log), "cannot load a=1");
        assert_eq!(
            reason_in("x  INFO start\nadjoin: no  library\n"),
            "no library"
        );
        assert_eq!(reason_in(""), "its log is empty");
    }
}
