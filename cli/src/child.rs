//! Child processes of a command: a server of its own, and workers that are told what to do by lines.
//!
//! All are this same program. They are killed when the value that stands for them is dropped, and the
//! kernel ends them when this process ends without dropping anything.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::control::Control;
use crate::parent::ParentArguments;
use crate::{Failure, drain, output};

/// How long a server may take to load its models.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a server that starts is looked at.
const READY_INTERVAL: Duration = Duration::from_millis(5);
/// How long an idle server may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// This program, as another process. It gets no setting by the environment that was meant for this one,
/// and no Ctrl-C of the terminal: that goes by way of this process.
fn command(subcommand: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("adjoin")
        .arg(subcommand)
        .arg(ParentArguments::flag());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ADJOIN_") {
            command.env_remove(name);
        }
    }
    command.process_group(0).kill_on_drop(true);
    command
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

/// A worker's answer to a line.
#[derive(Debug, Serialize, Deserialize)]
enum Reply<T> {
    Done(T),
    Failed(String),
}

/// A process that takes a line of JSON and answers with one.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    commands: ChildStdin,
    replies: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts this program with a hidden command.
    pub(crate) fn start(subcommand: &str) -> Result<Self, Failure> {
        let mut command = command(subcommand);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot start a client process: {error}"))?;
        let (Some(commands), Some(replies)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a client process has no pipes".into());
        };
        Ok(Self {
            child,
            commands,
            replies: BufReader::new(replies).lines(),
        })
    }

    pub(crate) async fn send(&mut self, message: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(message)? + "\n";
        if self.commands.write_all(line.as_bytes()).await.is_err() {
            // Why it does not read any more is in its answer, or in its end.
            return self.receive().await;
        }
        Ok(())
    }

    pub(crate) async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let Some(line) = self.replies.next_line().await? else {
            let status = self.child.wait().await?;
            return Err(format!("a client process ended early ({status})").into());
        };
        match serde_json::from_str(&line)? {
            Reply::Done(answer) => Ok(answer),
            Reply::Failed(reason) => Err(reason.into()),
        }
    }

    /// Lets the process end and waits for it.
    pub(crate) async fn end(mut self) -> Result<(), Failure> {
        drop(self.commands);
        check(self.child.wait().await?)
    }
}

fn check(status: ExitStatus) -> Result<(), Failure> {
    if status.success() {
        return Ok(());
    }
    Err(format!("a client process ended with {status}").into())
}

/// The worker's side: the next line; `None` when there will be no more.
pub(crate) fn next_command<T: DeserializeOwned>() -> Result<Option<T>, Failure> {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

/// The worker's side: answers a line. False after a failure: there is nothing more to be done then.
pub(crate) fn reply<T: Serialize>(outcome: Result<T, Failure>) -> Result<bool, Failure> {
    let reply = outcome.map_or_else(
        |error| Reply::Failed(output::one_line(&error.to_string())),
        Reply::Done,
    );
    output::print(&(serde_json::to_string(&reply)? + "\n"))?;
    Ok(matches!(reply, Reply::Done(_)))
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
