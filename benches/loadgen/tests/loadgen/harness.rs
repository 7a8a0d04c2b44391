//! Servers to drive, and runs of the command.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use adjoin_tests::server::{Setup, TestServer, model_file};
use rustix::process::Signal;
use serde_json::Value;

/// An input of the model `fixed`, whose output `y` equals its input for values that are not below zero, as
/// all are here.
pub(crate) const INPUT: &str = "x:FP32:2,3";

/// The command with its arguments, which are split at spaces.
pub(crate) fn command(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adjoin-loadgen"));
    command
        .args(arguments.split_whitespace())
        .env("ADJOIN_ONNXRUNTIME", adjoin_tests::onnxruntime())
        .stdin(Stdio::null());
    command
}

/// Runs the command to its end.
pub(crate) fn run(arguments: &str) -> Output {
    command(arguments).output().unwrap()
}

/// Runs the command, which must be well, and gives its lines of JSON.
pub(crate) fn measure(arguments: &str) -> Vec<Value> {
    let (before, after) = arguments.split_once(" -- ").unwrap_or((arguments, ""));
    let separator = if after.is_empty() { "" } else { " -- " };
    let output = run(&format!("{before} --json{separator}{after}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Runs the command, which must fail, and gives the line that says why.
pub(crate) fn error(arguments: &str) -> String {
    let output = run(arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments}: {errors}");
    assert_eq!(errors.trim_end().lines().count(), 1, "{errors}");
    errors
}

/// The file of a test model.
pub(crate) fn model(name: &str) -> String {
    model_file(name).display().to_string()
}

/// A server of adjoin, and its address for gRPC.
pub(crate) fn adjoin(models: &[&str], config: &str) -> (TestServer, String) {
    let address = free_address();
    let server = Setup::new(models)
        .config(config)
        .flags(&["--grpc-addr", &address])
        .start();
    (server, address)
}

/// An address that nobody listens at.
pub(crate) fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// `adjoin-loadgen serve-iceoryx2`, until it is dropped.
pub(crate) struct Iceoryx2Server {
    child: Child,
    pub(crate) service: String,
}

impl Iceoryx2Server {
    /// Serves under a name of its own.
    pub(crate) fn start(name: &str, arguments: &str) -> Self {
        let service = format!("adjoin-test-{}-{name}", std::process::id());
        let mut command = command(&format!("serve-iceoryx2 --service {service} {arguments}"));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut output = output;
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, service }
    }

    /// Ends it as a user would.
    pub(crate) fn end(mut self) -> bool {
        signal(&self.child, Signal::INT);
        self.child.wait().unwrap().success()
    }
}

impl Drop for Iceoryx2Server {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            // Ended in order, so that its service is gone, too.
            signal(&self.child, Signal::TERM);
            self.child.wait().unwrap();
        }
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(child: &Child, signal: Signal) {
    rustix::process::kill_process(adjoin_tests::server::pid(child.id()), signal).unwrap();
}
