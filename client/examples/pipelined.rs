//! Keeps several requests under way and lives on when the server restarts:
//! `cargo run --example pipelined -- /run/adjoin digits`.
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use adjoin_client::{Client, Pending, Request};

const DEPTH: usize = 8;
const RUNS: usize = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let socket_dir = arguments.next().unwrap_or_else(|| "/run/adjoin".into());
    let name = arguments.next().unwrap_or_else(|| "digits".into());

    let client = Client::builder()
        .name("pipelined example")
        .reconnect_timeout(Duration::from_secs(30))
        .connect(&socket_dir)?;
    let model = client.model(&name)?;
    // Made one after another, they lie side by side: the server can run them as one batch in place.
    let mut idle: Vec<Request> = (0..DEPTH)
        .map(|_| model.request_batch(1)?.build())
        .collect::<Result<_, _>>()?;
    let mut under_way: VecDeque<Pending> = VecDeque::new();
    let (mut runs, mut rows, began) = (0, 0, Instant::now());
    while runs < RUNS {
        while let Some(mut request) = idle.pop() {
            request.input_bytes_mut_at(0)?.fill(0);
            under_way.push_back(request.submit()?);
        }
        let Some(oldest) = under_way.pop_front() else {
            break;
        };
        match oldest.wait() {
            Ok(response) => {
                runs += 1;
                rows += response.stats().batch_size;
                idle.push(response.into_request());
            }
            // The request is back, and goes to the next server.
            Err(failed) => {
                println!("{failed}");
                idle.extend(failed.request);
            }
        }
    }
    println!(
        "{runs} runs in {:?}, in batches of {:.1} rows, {} reconnects",
        began.elapsed(),
        f64::from(rows) / RUNS as f64,
        client.reconnects()
    );
    Ok(())
}
