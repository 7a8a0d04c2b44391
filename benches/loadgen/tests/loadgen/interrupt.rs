//! However a command ends, nothing of it is left.

use std::fs;
use std::process::{Child, Stdio};

use adjoin_tests::wait_for;
use rustix::process::Signal;

use crate::harness::{INPUT, adjoin, command, signal};
use crate::stub::Stub;

/// A measurement that would take a minute, with its client processes.
struct Long {
    child: Child,
    clients: Vec<String>,
}

impl Long {
    fn start(target: &str, clients: usize) -> Self {
        let mut command = command(&format!(
            "run --target {target} --model fixed --input {INPUT} --clients {clients} --seconds 60"
        ));
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let path = format!("/proc/{0}/task/{0}/children", child.id());
        let clients = wait_for("all clients", || {
            let children = fs::read_to_string(&path).unwrap();
            let children: Vec<_> = children.split_whitespace().map(str::to_owned).collect();
            (children.len() == clients && children.iter().all(|pid| works(pid))).then_some(children)
        });
        Self { child, clients }
    }

    fn end_by(&mut self, with: Signal) -> Option<i32> {
        signal(&self.child, with);
        let status = self.child.wait().unwrap();
        for client in &self.clients {
            wait_for("end of a client", || (!is_there(client)).then_some(()));
        }
        status.code()
    }
}

/// Whether a client has begun a phase: its thread has used the processor for some time.
fn works(pid: &str) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let times = tasks.flatten().filter_map(|task| {
        let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
        line.split(' ').next()?.parse::<u64>().ok()
    });
    times.sum::<u64>() > 100_000_000
}

fn is_there(pid: &str) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // One that nobody has waited for is none any more.
        Ok(stat) => !stat.contains(") Z "),
        Err(_) => false,
    }
}

/// Names in shared memory of a command.
fn segments(child: &Child) -> usize {
    let prefix = format!("adjoin-loadgen-{}-", child.id());
    let names = fs::read_dir("/dev/shm").unwrap().flatten();
    names
        .filter(|name| name.file_name().to_string_lossy().starts_with(&prefix))
        .count()
}

#[test]
fn signals_end_the_clients_and_their_sessions() {
    let (server, _) = adjoin(&["fixed"], "");
    let target = format!("adjoin:{}", server.socket_dir().display());
    for (with, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut long = Long::start(&target, 3);
        assert_eq!(long.end_by(with), Some(code));
    }
    // Nothing can be done when it is killed; its clients notice.
    let mut long = Long::start(&target, 2);
    assert_eq!(long.end_by(Signal::KILL), None);
}

#[test]
fn shared_memory_is_given_back() {
    let stub = Stub::start();
    let target = format!("http-v2-shm:{}", stub.address);
    let mut long = Long::start(&target, 2);
    assert_eq!(stub.regions(), 2);
    // What the server has opened needs no name.
    assert_eq!(segments(&long.child), 0);
    assert_eq!(long.end_by(Signal::INT), Some(130));
    assert_eq!((stub.regions(), segments(&long.child)), (0, 0));
}
