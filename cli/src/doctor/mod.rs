//! `adjoin doctor`: what this machine allows, and what to do where it does not.
//!
//! What can be tried is tried, with the code that the server and its clients use.

mod devices;
mod engines;
mod memory;
mod place;
mod system;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::control::SocketDirArguments;
use crate::output::Paint;
use crate::serve::read_config;
use crate::{Failure, interrupt, output};

/// Says what this machine allows: shared memory, limits, engines, a device, the socket directory.
///
/// Each line is ok, warn or fail, with what to do about it. Exit code 1 if anything fails.
#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    #[command(flatten)]
    server: SocketDirArguments,

    /// ONNX Runtime's library [default: next to the command, then the system's library directories]
    #[arg(long, value_name = "FILE", env = "ADJOIN_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,

    /// TensorRT's library [default: next to the command, then the system's library directories]
    #[cfg(feature = "tensorrt")]
    #[arg(long, value_name = "FILE", env = "ADJOIN_TENSORRT")]
    tensorrt: Option<PathBuf>,

    /// Configuration file (TOML) of the server: its device, and how much of sessions' memory is registered with it
    #[arg(long, value_name = "FILE", env = "ADJOIN_CONFIG")]
    config: Option<PathBuf>,

    /// Writes JSON
    #[arg(long)]
    json: bool,
}

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// adjoin works, but not as well as it could, or not for all.
    Warn,
    /// adjoin does not work.
    Fail,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    name: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What to do about it.
    advice: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Ok,
            found: found.into(),
            advice: None,
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Warn,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Fail,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }
}

pub(crate) fn run(arguments: &DoctorArguments) -> Result<ExitCode, Failure> {
    let socket_dir = &arguments.server.socket_dir;
    let config = read_config(arguments.config.as_deref())?;
    #[cfg(feature = "tensorrt")]
    let tensorrt = arguments.tensorrt.as_deref();
    #[cfg(not(feature = "tensorrt"))]
    let tensorrt = None;
    let mut findings = memory::findings();
    findings.extend(system::findings());
    findings.extend(engines::findings(arguments.onnxruntime.as_deref()));
    findings.extend(devices::findings(&config, tensorrt));
    findings.extend(place::directory(socket_dir));
    findings.extend(interrupt::block_on(async {
        Ok(place::server(socket_dir).await)
    })?);
    let has_failed = findings.iter().any(|finding| finding.state == State::Fail);
    if arguments.json {
        output::print_json(&json!({ "ok": !has_failed, "findings": findings }))?;
    } else {
        output::print(&to_text(&findings, Paint::for_stdout()))?;
    }
    Ok(if has_failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn to_text(findings: &[Finding], paint: Paint) -> String {
    let width = findings
        .iter()
        .map(|finding| finding.name.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for Finding {
        name,
        state,
        found,
        advice,
    } in findings
    {
        let state = match state {
            State::Ok => paint.green("ok  "),
            State::Warn => paint.yellow("warn"),
            State::Fail => paint.red("fail"),
        };
        text.push_str(&format!("{state}  {name:width$}  {found}\n"));
        if let Some(advice) = advice {
            text.push_str(&format!(
                "      {:width$}  {}\n",
                "",
                paint.bold(&format!("-> {advice}"))
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_stands_below_what_it_is_about() {
        let findings = [
            Finding::ok("a", "good"),
            Finding::fail("long name", "bad", "do this"),
        ];
        let text = to_text(&findings, Paint::for_stdout());
        assert_eq!(
            text,
            "ok    a          good\nfail  long name  bad\n                 -> do this\n"
        );
    }
}
