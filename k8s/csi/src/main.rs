//! The `adjoin-csi` command.

use std::path::PathBuf;
use std::process::ExitCode;

use adjoin_csi::serve::{Options, serve};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Gives pods the socket directory of their node's server, as an inline CSI volume.
///
/// Runs on each node, as root, with the kubelet's directory mounted bidirectionally. A pod asks for the volume by
/// `csi: {driver: csi.adjoin, readOnly: true}`.
#[derive(Debug, Parser)]
#[command(name = "adjoin-csi", version)]
struct Arguments {
    /// Socket of the driver
    #[arg(long, value_name = "PATH", default_value = "/csi/csi.sock")]
    endpoint: PathBuf,

    /// The same socket as the kubelet sees it
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/var/lib/kubelet/plugins/csi.adjoin/csi.sock"
    )]
    kubelet_endpoint: String,

    /// Socket by which the kubelet finds the driver
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/registration/csi.adjoin-reg.sock"
    )]
    registration: PathBuf,

    /// Socket directory of the node's server
    #[arg(
        long,
        value_name = "DIR",
        env = "ADJOIN_SOCKET_DIR",
        default_value = "/run/adjoin"
    )]
    socket_dir: PathBuf,

    /// The kubelet's directory of pods; nothing outside of it is mounted on
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet/pods")]
    pods_dir: PathBuf,

    /// Name of this node
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node_name: String,

    /// What is logged: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", env = "ADJOIN_LOG", default_value = "info")]
    log: tracing::Level,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .with_env_filter(EnvFilter::new(arguments.log.as_str()))
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    let options = Options {
        endpoint: arguments.endpoint,
        kubelet_endpoint: arguments.kubelet_endpoint,
        registration: arguments.registration,
        socket_dir: arguments.socket_dir,
        pods_dir: arguments.pods_dir,
        node_name: arguments.node_name,
    };
    match runtime.block_on(serve(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "ended");
            ExitCode::FAILURE
        }
    }
}
