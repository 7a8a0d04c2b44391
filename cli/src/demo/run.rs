//! The course of the demo.

use std::time::{Duration, Instant};

use adjoin_control_api::control::{ModelStatistics, ServerStatusResponse};
use indicatif::{ProgressBar, ProgressStyle};

use super::DemoArguments;
use super::client::{Command, Job, Pass};
use super::digits::{Digits, MODEL, MODEL_FILE, Reading};
use super::gallery;
use super::report::{Report, Stream};
use crate::child::{self, ServerHome, ServerProcess};
use crate::control::Control;
use crate::histogram::Latencies;
use crate::output::Paint;
use crate::process::Worker;
use crate::{Failure, output};

pub(super) const CLIENTS: u32 = 4;
/// Requests that each client has under way: with four clients, as many as a batch takes.
pub(super) const PIPELINE: u32 = 8;
/// How often each client goes over all pictures, each way.
pub(super) const PASSES: u64 = 10;

pub(super) async fn run(arguments: &DemoArguments) -> Result<(), Failure> {
    let paint = Paint::for_stdout();
    let digits = Digits::load()?;
    let server = start_server(arguments).await?;
    let mut control = Control::connect(&server.socket_dir()).await?;
    let status = control.status().await?;
    output::print(&heading(&mut control, &status, &digits, paint).await?)?;

    let mut clients = start_clients(&server).await?;
    let progress = progress();
    progress.set_message("through shared memory");
    let before = statistics(&mut control).await?;
    let shared = stream(&mut clients, Command::Stream, &digits, &progress).await?;
    let after = statistics(&mut control).await?;
    progress.set_message("one by one");
    let alone = one_by_one(&mut clients, &digits).await?;
    let after_alone = statistics(&mut control).await?;
    progress.set_message("as gRPC messages");
    let messages = stream(&mut clients, Command::Messages, &digits, &progress).await?;
    progress.finish_and_clear();
    for client in clients {
        client.end().await?;
    }

    let chosen = gallery::choose(&digits, &shared.readings);
    output::print(&gallery::draw(&digits, &shared.readings, &chosen, paint))?;
    drop(control);
    server.stop().await?;
    let report = Report {
        shared,
        alone,
        messages,
        before,
        after,
        after_alone,
    };
    output::print(&report.text())
}

async fn start_server(arguments: &DemoArguments) -> Result<ServerProcess, Failure> {
    let home = ServerHome::new()?;
    let directory = home.models().join(MODEL).join("1");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("model.onnx"), MODEL_FILE)?;
    // A model as small as this has nothing to divide among threads.
    let config: toml::Table = "[defaults]\nintra_op_threads = 1\n".parse()?;
    ServerProcess::start(home, &config, arguments.onnxruntime.as_deref()).await
}

async fn heading(
    control: &mut Control,
    status: &ServerStatusResponse,
    digits: &Digits,
    paint: Paint,
) -> Result<String, Failure> {
    let model = control.ready_model(MODEL).await?;
    let engine = status
        .engines
        .iter()
        .find(|engine| engine.starts_with(&model.engine));
    let title = paint.bold("adjoin demo: handwritten digits from four processes to one model");
    Ok(format!(
        "{title}\nserver {} runs model {MODEL} on {}; {CLIENTS} client processes stream {} held-out pictures each,\n\
         {PASSES} times, {PIPELINE} requests under way in each, batches of up to {}\n\n",
        status.version,
        engine.unwrap_or(&model.engine),
        digits.count(),
        model.max_batch_size,
    ))
}

async fn start_clients(server: &ServerProcess) -> Result<Vec<Worker>, Failure> {
    let mut clients = Vec::new();
    for number in 1..=CLIENTS {
        let mut client = child::worker("demo-client")?;
        let name = format!("demo-{number}");
        client
            .send(&Job {
                name,
                socket_dir: server.socket_dir(),
                pipeline: PIPELINE,
            })
            .await?;
        clients.push(client);
    }
    for client in &mut clients {
        client.receive::<()>().await?;
    }
    Ok(clients)
}

async fn statistics(control: &mut Control) -> Result<ModelStatistics, Failure> {
    let model = control.ready_model(MODEL).await?;
    Ok(model
        .statistics
        .ok_or("the server counts nothing for the model")?)
}

/// All clients at once, pass by pass.
async fn stream(
    clients: &mut [Worker],
    command: Command,
    digits: &Digits,
    progress: &ProgressBar,
) -> Result<Stream, Failure> {
    let mut stream = Stream::new();
    for _ in 0..PASSES {
        let began = Instant::now();
        for client in &mut *clients {
            client.send(&command).await?;
        }
        for client in &mut *clients {
            add(&mut stream, client.receive().await?, digits);
        }
        stream.elapsed += began.elapsed();
        progress.inc(1);
    }
    Ok(stream)
}

async fn one_by_one(clients: &mut [Worker], digits: &Digits) -> Result<Stream, Failure> {
    let mut stream = Stream::new();
    if let Some(client) = clients.first_mut() {
        let began = Instant::now();
        client.send(&Command::OneByOne).await?;
        add(&mut stream, client.receive().await?, digits);
        stream.elapsed = began.elapsed();
    }
    Ok(stream)
}

fn add(stream: &mut Stream, pass: Pass, digits: &Digits) {
    stream.latencies.merge(&pass.latencies);
    stream.requests += pass.readings.len();
    let right = pass
        .readings
        .iter()
        .zip(&digits.labels)
        .filter(|((digit, _), label)| digit == *label);
    stream.right += right.count();
    if stream.readings.is_empty() {
        let readings = pass
            .readings
            .into_iter()
            .map(|(digit, confidence)| Reading { digit, confidence });
        stream.readings = readings.collect();
    }
}

fn progress() -> ProgressBar {
    if !output::is_progress_wanted() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(2 * PASSES);
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} passes");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

impl Stream {
    fn new() -> Self {
        Self {
            latencies: Latencies::new(),
            requests: 0,
            right: 0,
            elapsed: Duration::ZERO,
            readings: Vec::new(),
        }
    }
}
