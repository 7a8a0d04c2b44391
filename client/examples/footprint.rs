//! What a server costs beside its requests: memory of a session, memory over many requests, processor time while idle.
//!
//! `cargo run --release -p adjoin-client --example footprint -- SOCKET_DIR SERVER_PID MODEL [SESSIONS] [REQUESTS]`,
//! where the model has one input with all dimensions fixed but the rows.

use std::error::Error;
use std::time::Duration;

use adjoin_client::{Client, Request};

const IDLE: Duration = Duration::from_secs(10);

/// A number of KiB from `/proc/PID/status`.
fn kib(pid: &str, key: &str) -> Result<i64, Box<dyn Error>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find(|line| line.starts_with(key))
        .ok_or("no such line")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}

/// Processor time of all threads, in ns.
fn processor_ns(pid: &str) -> Result<u64, Box<dyn Error>> {
    let mut total = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        total += text.split(' ').next().ok_or("no number")?.parse::<u64>()?;
    }
    Ok(total)
}

fn session(socket_dir: &str, model: &str) -> Result<Request, Box<dyn Error>> {
    let client = Client::builder()
        .request_bytes(1 << 20)
        .response_bytes(1 << 20)
        .connect(socket_dir)?;
    let mut request = client.model(model)?.request_batch(1)?.build()?;
    request.infer()?;
    Ok(request)
}

#[allow(clippy::print_stdout, reason = "an example prints")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket_dir, pid, model, rest @ ..] = arguments.as_slice() else {
        return Err("usage: footprint SOCKET_DIR SERVER_PID MODEL [SESSIONS] [REQUESTS]".into());
    };
    let count: i64 = rest.first().map_or(Ok(16), |text| text.parse())?;
    let requests: u32 = rest.get(1).map_or(Ok(1_000_000), |text| text.parse())?;

    let mut first = session(socket_dir, model)?;
    for _ in 0..requests / 10 {
        first.infer()?;
    }
    let before = kib(pid, "RssAnon")?;
    for _ in 0..requests {
        first.infer()?;
    }
    println!(
        "private memory of the server over {requests} requests: {:+} KiB",
        kib(pid, "RssAnon")? - before
    );

    let before = kib(pid, "RssAnon")?;
    let sessions = (0..count)
        .map(|_| session(socket_dir, model))
        .collect::<Result<Vec<_>, _>>()?;
    let grown = kib(pid, "RssAnon")? - before;
    println!(
        "private memory of the server for each of {count} sessions: {} KiB, beside their regions",
        grown / count.max(1)
    );

    std::thread::sleep(Duration::from_millis(500));
    let before = processor_ns(pid)?;
    std::thread::sleep(IDLE);
    println!(
        "processor time of the server in {IDLE:?} with {} idle sessions: {} us",
        sessions.len() + 1,
        (processor_ns(pid)? - before) / 1000
    );
    Ok(())
}
