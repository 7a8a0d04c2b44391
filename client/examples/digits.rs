//! A client that lives as long as its service: reads handwritten digits over and over, and outlives its server.
//!
//! `cargo run --release -p adjoin-client --example digits -- SOCKET_DIR [--passes N] [--pause-ms MS]`, with the model of
//! `demo/digits`. Prints a line at the first answer, then one a second: requests that were answered and that failed,
//! pictures read right, the longest round trip. It ends when it is told to, or with `--passes` after so many passes over
//! all pictures: with 0 if no request failed and at least 95 of 100 pictures were read right.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use adjoin_client::{Client, Request};
use tokio::signal::unix::{SignalKind, signal};

const IMAGES: &[u8] = include_bytes!("../../demo/digits/test_images.npy");
const LABELS: &[u8] = include_bytes!("../../demo/digits/test_labels.npy");
/// Bytes before the values of these two files.
const HEADER_BYTES: usize = 128;
const PIXELS: usize = 64;

/// How long the next server is waited for after one went.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

struct Arguments {
    socket_dir: String,
    passes: Option<usize>,
    pause: Duration,
}

impl Arguments {
    fn parse() -> Result<Self, Box<dyn Error>> {
        let usage = "usage: digits SOCKET_DIR [--passes N] [--pause-ms MS]";
        let mut words = std::env::args().skip(1);
        let mut parsed = Self {
            socket_dir: words.next().ok_or(usage)?,
            passes: None,
            pause: Duration::ZERO,
        };
        while let Some(word) = words.next() {
            let value = words.next().ok_or(usage)?.parse::<u32>();
            let value = value.map_err(|error| format!("{word}: {error}"))?;
            match word.as_str() {
                "--passes" => parsed.passes = Some(value as usize),
                "--pause-ms" => parsed.pause = Duration::from_millis(value.into()),
                _ => return Err(usage.into()),
            }
        }
        Ok(parsed)
    }
}

#[derive(Default)]
struct Tally {
    answered: usize,
    failed: usize,
    right: usize,
    longest: Duration,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.right += other.right;
        self.longest = self.longest.max(other.longest);
    }
}

#[allow(clippy::print_stdout, reason = "an example prints")]
fn report(what: &str, tally: &Tally, client: &Client) {
    let Tally {
        answered,
        failed,
        right,
        longest,
    } = tally;
    let servers = client.reconnects() + 1;
    println!(
        "{what}: answered={answered} failed={failed} right={right} longest_us={} servers={servers}",
        longest.as_micros()
    );
}

/// The digit that the model sees on a picture.
fn read(request: &mut Request, pixels: &[u8]) -> Result<Option<usize>, Box<dyn Error>> {
    let input = request.input_mut::<f32>("image")?;
    for (value, pixel) in input.iter_mut().zip(pixels) {
        *value = f32::from(*pixel);
    }
    let outputs = request.infer()?;
    let scores = outputs.get::<f32>("scores")?;
    let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    Ok(best.map(|(digit, _)| digit))
}

/// Set when the process is told to end: as the first process of a container it would not be ended by the signal itself.
fn told_to_end() -> Result<Arc<AtomicBool>, Box<dyn Error>> {
    let told = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let mut terminate = {
        let _inside = runtime.enter();
        signal(SignalKind::terminate())?
    };
    let is_told = Arc::clone(&told);
    std::thread::spawn(move || {
        runtime.block_on(terminate.recv());
        is_told.store(true, Ordering::Relaxed);
    });
    Ok(told)
}

#[allow(clippy::print_stderr, reason = "an example prints")]
fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints"
)]
fn run() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::parse()?;
    let (images, labels) = (&IMAGES[HEADER_BYTES..], &LABELS[HEADER_BYTES..]);
    let told_to_end = told_to_end()?;
    let client = Client::builder()
        .name("digits")
        .request_bytes(1 << 20)
        .response_bytes(1 << 20)
        .reconnect_timeout(RECONNECT_TIMEOUT)
        .connect(&arguments.socket_dir)?;
    let mut request = client.model("digits")?.request_batch(1)?.build()?;
    let (mut total, mut recent, mut reported) =
        (Tally::default(), Tally::default(), Instant::now());
    'passes: for _ in 0..arguments.passes.unwrap_or(usize::MAX) {
        for (pixels, label) in images.chunks_exact(PIXELS).zip(labels) {
            if told_to_end.load(Ordering::Relaxed) {
                break 'passes;
            }
            let began = Instant::now();
            match read(&mut request, pixels) {
                Ok(digit) => {
                    if total.answered + recent.answered == 0 {
                        println!("first answer");
                    }
                    recent.answered += 1;
                    recent.right += usize::from(digit == Some(usize::from(*label)));
                    recent.longest = recent.longest.max(began.elapsed());
                }
                Err(error) => {
                    recent.failed += 1;
                    eprintln!("failed: {error}");
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            if reported.elapsed() >= REPORT_INTERVAL {
                report("second", &recent, &client);
                total.add(&recent);
                (recent, reported) = (Tally::default(), Instant::now());
            }
            if !arguments.pause.is_zero() {
                std::thread::sleep(arguments.pause);
            }
        }
    }
    total.add(&recent);
    report("total", &total, &client);
    let is_good = total.failed == 0 && total.right * 100 >= total.answered * 95;
    Ok(ExitCode::from(u8::from(!is_good)))
}
