//! The socket directory, and a server in it.

use std::path::Path;

use adjoin_control_api::control::ServerStatusResponse;
use adjoin_server::control::CONTROL_SOCKET;
use rustix::fs::Access;

use super::{Finding, devices};
use crate::control::{Control, ControlError};
use crate::output::bytes_text;

const DIRECTORY: &str = "socket directory";
const SERVER: &str = "server";

/// Longest path of a unix socket in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Whether a server could have its sockets there.
pub(super) fn directory(socket_dir: &Path) -> Option<Finding> {
    let shown = socket_dir.display();
    let longest = socket_dir.join(CONTROL_SOCKET).as_os_str().len();
    if longest > SOCKET_PATH_BYTES_MAX {
        let found = format!("the path of a socket in {shown} would have {longest} bytes");
        let advice = format!(
            "name a shorter --socket-dir: such a path has at most {SOCKET_PATH_BYTES_MAX} bytes"
        );
        return Some(Finding::fail(DIRECTORY, found, advice));
    }
    // A directory that is not there would be made.
    let existing = socket_dir
        .ancestors()
        .find(|path| path.exists() && !path.as_os_str().is_empty());
    let existing = existing.unwrap_or_else(|| Path::new("."));
    let is_usable = existing.is_dir()
        && rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    Some(if !is_usable {
        let user = rustix::process::geteuid().as_raw();
        let found = format!("user {user} cannot write to {}", existing.display());
        let advice = format!(
            "a server needs it: make {shown} for this user, or name another --socket-dir; a client does not"
        );
        Finding::warn(DIRECTORY, found, advice)
    } else if existing == socket_dir {
        Finding::ok(DIRECTORY, format!("{shown} is there and writable"))
    } else {
        Finding::ok(
            DIRECTORY,
            format!("{shown} is not there; a server can make it"),
        )
    })
}

/// What a server says of its memory limit, which need not be this process's; nothing if it has none.
fn memory_text(status: &ServerStatusResponse) -> String {
    if status.memory_limit_bytes == 0 {
        return String::new();
    }
    format!(
        ", {} left for sessions of a memory limit of {} ({} used)",
        bytes_text(status.memory_left_bytes),
        bytes_text(status.memory_limit_bytes),
        bytes_text(status.memory_used_bytes)
    )
}

/// Whether a server runs there, and what it has to do with a device.
pub(super) async fn server(socket_dir: &Path) -> Vec<Finding> {
    let status = async {
        let mut control = Control::connect(socket_dir).await?;
        let status = control.status().await?;
        let models = control.models().await?;
        Ok((status, models))
    };
    match status.await {
        Ok((status, models)) => {
            let ready = models.iter().filter(|model| model.state == "ready").count();
            let is_failed = |state: &str| state == "failed" || state == "lost";
            let failed = models.iter().filter(|model| is_failed(&model.state));
            let failed = failed.count();
            let found = format!(
                "release {}, {}, {} sessions, {ready} model versions ready, {failed} failed",
                status.version, status.state, status.sessions,
            );
            let found = found + &memory_text(&status);
            let mut findings = vec![if failed == 0 {
                Finding::ok(SERVER, found)
            } else {
                Finding::warn(
                    SERVER,
                    found,
                    "`adjoin models` says why, and the server's log in more words",
                )
            }];
            findings.extend(status.device.iter().flat_map(devices::of_server));
            findings
        }
        Err(ControlError::NoServer { dir, reason }) => {
            let found = format!("none in {}: {reason}", dir.display());
            vec![Finding::ok(SERVER, found)]
        }
        Err(error) => vec![Finding::fail(
            SERVER,
            error.to_string(),
            "see what holds the socket; `adjoin serve` takes over what a dead server left",
        )],
    }
}
