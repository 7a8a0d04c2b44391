//! What this crate does on the driver and device at hand, measured and checked: the steps of `tools/gpu-check`.
//!
//! `gpu_check STEP [--quick]` writes one JSON object to standard output and ends with 0, or says what went wrong on standard
//! error and ends with 1. Figures are medians. On a fake driver the figures mean nothing, and say nothing of being fake: who
//! starts the program knows.

mod copies;
mod death;
mod gather;
mod ordering;
mod pixels;
mod register;
mod setup;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use adjoin_cuda::Driver;
use serde_json::{Value, json};

/// What went wrong, for a person.
type Failure = Box<dyn Error>;

const USAGE: &str = "usage: gpu_check probe|register|copies|gather|ordering|pixels|death [--quick]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = run(&arguments).and_then(|figures| {
        writeln!(std::io::stdout(), "{figures}")?;
        Ok(())
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a standard error nobody is there to be told.
            let _ = writeln!(std::io::stderr(), "gpu_check: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<Value, Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (step, rest) = words.split_first().ok_or(USAGE)?;
    let is_quick = match rest {
        [] => false,
        ["--quick"] => true,
        [request, response] if *step == death::CLIENT => return death::client(request, response),
        _ => return Err(USAGE.into()),
    };
    match *step {
        "probe" => probe(),
        "register" => register::run(is_quick),
        "copies" => copies::run(is_quick),
        "gather" => gather::run(is_quick),
        "ordering" => ordering::run(is_quick),
        "pixels" => pixels::run(is_quick),
        "death" => death::run(is_quick),
        _ => Err(USAGE.into()),
    }
}

fn probe() -> Result<Value, Failure> {
    let driver = Driver::find()?;
    let (major, minor) = driver.version();
    let mut devices = Vec::new();
    for index in 0..driver.device_count() {
        let facts = driver.facts(index)?;
        devices.push(json!({
            "name": facts.name,
            "memory_bytes": facts.memory_bytes,
            "compute_capability": format!("{}.{}", facts.compute_capability.0, facts.compute_capability.1),
            "registration": facts.registration,
            "read_only_registration": facts.read_only_registration,
            "copy_engines": facts.copy_engines,
        }));
    }
    Ok(json!({
        "cuda": format!("{major}.{minor}"),
        "batched_copy": driver.has_batched_copy(),
        "devices": devices,
    }))
}
