//! Child processes of a command: workers that are told what to do by lines.
//!
//! All are this same program. They are killed when the value that stands for them is dropped.

use std::process::{ExitStatus, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::{Failure, output};

/// This program, as another process, under the name that users know it by. It gets no setting by the
/// environment that was meant for this one, and no Ctrl-C of the terminal: that goes by way of this
/// process.
#[must_use]
pub fn this_program(name: &str, subcommand: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).arg(subcommand);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ADJOIN_") {
            command.env_remove(name);
        }
    }
    command.process_group(0).kill_on_drop(true);
    command
}

/// A worker's answer to a line.
#[derive(Debug, Serialize, Deserialize)]
enum Reply<T> {
    Done(T),
    Failed(String),
}

/// A process that takes a line of JSON and answers with one.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    commands: Option<ChildStdin>,
    replies: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts a process that obeys.
    ///
    /// # Errors
    /// If the system cannot.
    pub fn start(mut command: Command) -> Result<Self, Failure> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot start a client process: {error}"))?;
        let (Some(commands), Some(replies)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a client process has no pipes".into());
        };
        Ok(Self {
            child,
            commands: Some(commands),
            replies: BufReader::new(replies).lines(),
        })
    }

    /// Sends a line.
    ///
    /// # Errors
    /// With the worker's reason, if it has ended.
    pub async fn send(&mut self, message: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(message)? + "\n";
        let sent = match &mut self.commands {
            Some(commands) => commands.write_all(line.as_bytes()).await.is_ok(),
            None => false,
        };
        if !sent {
            // Why it does not read any more is in its answer, or in its end.
            return self.receive().await;
        }
        Ok(())
    }

    /// Waits for the answer to a line.
    ///
    /// # Errors
    /// With the worker's reason, if it could not do what it was told.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let Some(line) = self.replies.next_line().await? else {
            let status = self.child.wait().await?;
            return Err(format!("a client process ended early ({status})").into());
        };
        match serde_json::from_str(&line)? {
            Reply::Done(answer) => Ok(answer),
            Reply::Failed(reason) => Err(reason.into()),
        }
    }

    /// Says that there will be no more lines, and does not wait.
    pub fn hang_up(&mut self) {
        self.commands = None;
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Lets the process end and waits for it.
    ///
    /// # Errors
    /// If it ends with a failure.
    pub async fn end(mut self) -> Result<(), Failure> {
        self.hang_up();
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
///
/// # Errors
/// If it is no line that this program writes.
pub fn next_command<T: DeserializeOwned>() -> Result<Option<T>, Failure> {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

/// The worker's side: answers a line. False after a failure: there is nothing more to be done then.
///
/// # Errors
/// If the answer cannot be written.
pub fn reply<T: Serialize>(outcome: Result<T, Failure>) -> Result<bool, Failure> {
    let reply = outcome.map_or_else(
        |error| Reply::Failed(output::one_line(&error.to_string())),
        Reply::Done,
    );
    output::print(&(serde_json::to_string(&reply)? + "\n"))?;
    Ok(matches!(reply, Reply::Done(_)))
}
