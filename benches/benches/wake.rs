//! The floor under a request between two sleeping processes: a bare futex round trip over shared memory, and
//! nothing else. `cargo bench -p adjoin-benches --bench wake`, with `-- --json` for lines that programs read;
//! `benches/asleep.sh` compares it with requests of the same placement.

#![allow(clippy::print_stdout, reason = "a bench prints")]

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use adjoin_schema::layout::SessionLayout;
use adjoin_shm::doorbell::{futex_wait, futex_wake_all};
use adjoin_shm::socket::{AttachListener, AttachSocket};
use adjoin_shm::{ClientMemory, SessionMemory};
use rustix::thread::{CpuSet, sched_setaffinity};

const TURNS: u32 = 20_000;
const WARM_UP: u32 = 2_000;
const LONGEST: Duration = Duration::from_millis(50);

fn pin(core: Option<usize>) {
    let Some(core) = core else { return };
    let mut cores = CpuSet::new();
    cores.set(core);
    // Without the core the figure is that of free placement, and says so by being alike.
    let _ = sched_setaffinity(None, &cores);
}

/// Waits until the word is `value`, asleep.
fn wait(word: &AtomicU32, value: u32) {
    loop {
        let seen = word.load(Ordering::Acquire);
        if seen == value {
            return;
        }
        futex_wait(word, seen, LONGEST);
    }
}

fn say(word: &AtomicU32, value: u32) {
    word.store(value, Ordering::Release);
    futex_wake_all(word);
}

fn layout() -> Result<SessionLayout, Box<dyn Error>> {
    Ok(SessionLayout::new(1 << 17, 1 << 17, 8)?)
}

/// The other process: answers every word of the first.
fn answer(socket: &Path, core: Option<usize>) -> Result<(), Box<dyn Error>> {
    pin(core);
    let socket = AttachSocket::connect(socket)?;
    socket.wait_readable(Duration::from_secs(5))?;
    let packet = socket.receive(16)?;
    let [request, response] = packet.fds.as_slice() else {
        return Err("two regions were expected".into());
    };
    let memory = ClientMemory::map(layout()?, request, response)?;
    for turn in 1..=TURNS + WARM_UP {
        wait(memory.completion_ring().tail, turn);
        say(memory.submission_ring().tail, turn);
    }
    Ok(())
}

fn measure(is_json: bool, name: &str, cores: Option<[usize; 2]>) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("wake.sock");
    let listener = AttachListener::bind(&path)?;
    let memory = SessionMemory::create(layout()?, 1)?;
    let mut other = Command::new(std::env::current_exe()?);
    other.arg("answer").arg(&path);
    if let Some([_, core]) = cores {
        other.arg(core.to_string());
    }
    let mut other = other.spawn()?;
    let socket = loop {
        match listener.accept() {
            Ok(socket) => break socket,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    socket.send(b"map", &memory.client_fds())?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(cores.map(|[core, _]| core));
            let mut took = Vec::new();
            for turn in 1..=TURNS + WARM_UP {
                let began = Instant::now();
                say(memory.completion_ring().tail, turn);
                wait(memory.submission_ring().tail, turn);
                if turn > WARM_UP {
                    took.push(began.elapsed());
                }
            }
            took.sort_unstable();
            let at = |part: usize| took[took.len() * part / 100];
            let (p50, p99) = (at(50), at(99));
            if is_json {
                let [p50, p99] = [p50, p99].map(|time| time.as_secs_f64() * 1e6);
                println!(
                    r#"{{"kind":"futex","placement":"{name}","p50_us":{p50:.2},"p99_us":{p99:.2}}}"#
                );
            } else {
                println!("futex round trip, both asleep, {name}: p50 {p50:?}, p99 {p99:?}");
            }
        });
    });
    other.wait()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "answer") {
        let core = arguments.get(at + 2).and_then(|core| core.parse().ok());
        return answer(Path::new(&arguments[at + 1]), core);
    }
    let is_json = arguments.iter().any(|argument| argument == "--json");
    measure(is_json, "wherever the kernel puts them", None)?;
    measure(is_json, "on one core", Some([0, 0]))?;
    measure(is_json, "on two cores", Some([0, 1]))
}
