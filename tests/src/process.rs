//! Client processes: `adjoin-test-client`, told what to do by its arguments, heard by its lines.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::binary;
use crate::server::TestServer;

/// A client process; killed when dropped.
#[derive(Debug)]
pub struct ClientProcess {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl ClientProcess {
    /// The test client, with a server's sockets and these arguments.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(server: &TestServer, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary("adjoin-test-client"));
        command.arg(server.socket_dir()).args(arguments);
        Self::of(command)
    }

    /// Any command.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn of(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Its next line.
    ///
    /// # Panics
    /// If it ended.
    pub fn line(&mut self) -> String {
        self.lines
            .next()
            .expect("the client process ended")
            .unwrap()
    }

    /// Reads on until a line begins like that.
    ///
    /// # Panics
    /// If it ended before.
    pub fn line_with(&mut self, prefix: &str) -> String {
        loop {
            let line = self.line();
            if line.starts_with(prefix) {
                return line;
            }
        }
    }

    /// Tells one that waits to go on.
    ///
    /// # Panics
    /// If it ended.
    pub fn go(&mut self) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(b"go\n").unwrap();
        stdin.flush().unwrap();
    }

    /// Kills it, as SIGKILL does, and waits for its end.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kills it and returns the lines that it wrote and nobody has read.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub fn kill_and_read(&mut self) -> Vec<String> {
        self.kill();
        self.lines.by_ref().map_while(Result::ok).collect()
    }
}

impl Drop for ClientProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
