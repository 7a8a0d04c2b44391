//! `adjoin models load`, `unload`, `label` and `split`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use adjoin_control_api::control::admin_client::AdminClient;
use adjoin_control_api::control::{
    LoadModelRequest, SetLabelRequest, SetSplitRequest, UnloadModelRequest,
};
use clap::{Args, Subcommand};

use crate::control::{ControlError, SocketDirArguments, admin_channel, answered};
use crate::{Failure, interrupt, output};

/// Changes of what a server serves. Only the server's own user may make them.
#[derive(Debug, Subcommand)]
pub(super) enum Change {
    Load(LoadArguments),
    Unload(UnloadArguments),
    Label(LabelArguments),
    Split(SplitArguments),
}

/// Loads a model, or what has changed of it, and waits until it serves.
///
/// New versions are warmed up before they take the place of old ones, which finish what they have. What cannot be loaded
/// takes nothing away that is served. The server has to run with --model-control-mode explicit.
#[derive(Debug, Args)]
pub(super) struct LoadArguments {
    /// Name of the model
    name: String,

    /// Configuration in protocol buffers' JSON, in place of the model's config.pbtxt until the next load
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    server: SocketDirArguments,
}

/// Unloads a model; requests that were taken are finished.
///
/// The server has to run with --model-control-mode explicit.
#[derive(Debug, Args)]
pub(super) struct UnloadArguments {
    /// Name of the model
    name: String,

    #[command(flatten)]
    server: SocketDirArguments,
}

/// Has a label, such as stable, name a version that is served.
///
/// It stands over the labels of the configuration until the model is unloaded or the server ends.
#[derive(Debug, Args)]
pub(super) struct LabelArguments {
    /// Name of the model
    name: String,

    /// The label
    label: String,

    /// Number of the version
    #[arg(required_unless_present = "remove", value_parser = clap::value_parser!(u64).range(1..))]
    version: Option<u64>,

    /// Takes the label away
    #[arg(long, conflicts_with = "version")]
    remove: bool,

    #[command(flatten)]
    server: SocketDirArguments,
}

/// Divides requests that name neither a version nor a label between versions, by weight.
///
/// Without a split they go to the newest version. It holds until the model is unloaded or the server ends.
#[derive(Debug, Args)]
pub(super) struct SplitArguments {
    /// Name of the model
    name: String,

    /// A version and its weight, such as 1=90 2=10
    #[arg(value_name = "VERSION=WEIGHT", value_parser = weight, required_unless_present = "remove")]
    weights: Vec<(u64, u32)>,

    /// Takes the split away
    #[arg(long, conflicts_with = "weights")]
    remove: bool,

    #[command(flatten)]
    server: SocketDirArguments,
}

fn weight(text: &str) -> Result<(u64, u32), String> {
    let parts = text
        .split_once('=')
        .and_then(|(version, weight)| Some((version.parse().ok()?, weight.parse().ok()?)));
    parts
        .filter(|&(version, _)| version > 0)
        .ok_or_else(|| "it is a version from 1 and a weight, such as 2=10".to_owned())
}

pub(super) fn run(change: Change) -> Result<ExitCode, Failure> {
    let done = interrupt::block_on(make(change))?;
    output::print(&done)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes a change; what is said of it.
async fn make(change: Change) -> Result<String, Failure> {
    let admin = |server: SocketDirArguments| async move {
        let channel = admin_channel(&server.socket_dir).await?;
        Ok::<_, ControlError>(AdminClient::new(channel))
    };
    Ok(match change {
        Change::Load(LoadArguments {
            name,
            config,
            server,
        }) => {
            let config = config.map(|path| {
                let text = std::fs::read_to_string(&path);
                text.map_err(|error| format!("cannot read --config {}: {error}", path.display()))
            });
            let request = LoadModelRequest {
                name: name.clone(),
                config: config.transpose()?.unwrap_or_default(),
            };
            // A large model takes its time.
            let loaded = admin(server).await?.load_model(request).await;
            loaded.map_err(ControlError::from)?;
            format!("{name}: loaded\n")
        }
        Change::Unload(UnloadArguments { name, server }) => {
            let request = UnloadModelRequest { name: name.clone() };
            // It waits for a load that is under way.
            let unloaded = admin(server).await?.unload_model(request).await;
            unloaded.map_err(ControlError::from)?;
            format!("{name}: unloaded\n")
        }
        Change::Label(arguments) => {
            let LabelArguments {
                name,
                label,
                version,
                server,
                ..
            } = arguments;
            let request = SetLabelRequest {
                name: name.clone(),
                label: label.clone(),
                version: version.unwrap_or(0),
            };
            answered(admin(server).await?.set_label(request)).await?;
            match version {
                Some(version) => format!("{name}: {label} is version {version}\n"),
                None => format!("{name}: {label} removed\n"),
            }
        }
        Change::Split(arguments) => {
            let SplitArguments {
                name,
                weights,
                server,
                ..
            } = arguments;
            let weights = by_version(&weights)?;
            let is_removed = weights.is_empty();
            let request = SetSplitRequest {
                name: name.clone(),
                weights,
            };
            answered(admin(server).await?.set_split(request)).await?;
            let what = if is_removed {
                "split removed"
            } else {
                "split set"
            };
            format!("{name}: {what}\n")
        }
    })
}

fn by_version(weights: &[(u64, u32)]) -> Result<HashMap<u64, u32>, Failure> {
    let mut by_version = HashMap::new();
    for &(version, weight) in weights {
        if by_version.insert(version, weight).is_some() {
            return Err(format!("version {version} has two weights").into());
        }
    }
    Ok(by_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_a_version_and_a_number_each() {
        assert_eq!(weight("2=10"), Ok((2, 10)));
        for wrong in ["2", "2=", "=1", "0=1", "a=1", "1=-1", "1=4294967296"] {
            assert!(weight(wrong).is_err(), "{wrong}");
        }
        assert!(by_version(&[(1, 1), (1, 2)]).is_err());
    }
}
