//! The hot path and nothing else: one prepared request, run again and again. Prints the round trip.
//!
//! `cargo run --release -p adjoin-client --example closed_loop -- SOCKET_DIR MODEL [REQUESTS]`, where the model has
//! inputs with all dimensions fixed but the rows.

use std::error::Error;
use std::time::Instant;

use adjoin_client::Client;

#[allow(clippy::print_stdout, reason = "an example prints")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket_dir, model, rest @ ..] = arguments.as_slice() else {
        return Err("usage: closed_loop SOCKET_DIR MODEL [REQUESTS]".into());
    };
    let requests: usize = rest.first().map_or(Ok(100_000), |text| text.parse())?;
    let client = Client::connect(socket_dir)?;
    let mut request = client.model(model)?.request_batch(1)?.build()?;
    for index in 0..client.model(model)?.info().inputs.len() {
        request.input_bytes_mut_at(index)?.fill(0);
    }
    let mut times = Vec::with_capacity(requests);
    for _ in 0..requests {
        let began = Instant::now();
        request.infer()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100);
    println!("{requests} requests, p50 {:?}, p99 {:?}", at(50), at(99));
    Ok(())
}
