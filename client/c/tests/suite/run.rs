//! Running a program that asks for things to happen to its server.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use adjoin_tests::server::TestServer;
use rustix::process::Signal;

/// Runs a program with the socket directory as its first argument, to its good end. A line on its standard
/// output may be a wish, which is fulfilled before the program gets a line back:
///
/// * `kill`: the server is killed;
/// * `stop`: the server is told to end, and has ended;
/// * `start`: a server is started in the same directories, and takes sessions.
///
/// Other lines are given back.
pub(crate) fn run(program: &Path, server: &mut TestServer, arguments: &[&str]) -> Vec<String> {
    let mut child = Command::new(program)
        .arg(server.socket_dir())
        .args(arguments)
        .env("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let errors = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || std::io::read_to_string(errors).unwrap());
    let mut input = child.stdin.take().unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        match line.unwrap().as_str() {
            "kill" => server.kill(),
            "stop" => {
                server.signal(Signal::TERM);
                assert_eq!(server.wait().code(), Some(0));
            }
            "start" => server.restart(),
            other => {
                said.push(other.to_owned());
                continue;
            }
        }
        // A program that did not wait has its reasons on standard error.
        let _ = input.write_all(b"done\n");
    }
    let status = child.wait().unwrap();
    let errors = errors.join().unwrap();
    assert!(
        status.success(),
        "{}: {status}\n{errors}",
        program.display()
    );
    said
}
