//! `adjoin socket-dir`.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::{Failure, output};

/// Makes a socket directory for a server that runs as another user.
///
/// For directories that only root may make, as for a server of a whole node: run it as root before the server, with
/// the server's user and the group of its clients. The directory is made if it is not there; what is in it stays. As
/// root without other capabilities it needs CHOWN and FOWNER.
#[derive(Debug, Args)]
pub(crate) struct SocketDirArguments {
    /// The directory
    #[arg(value_name = "DIR")]
    path: PathBuf,

    /// User of the server and group of its clients, as numbers
    #[arg(long, value_name = "UID:GID", value_parser = parse_owner)]
    owner: Owner,

    /// Permission bits, octal. With the set-group-id bit the sockets get the directory's group
    #[arg(long, value_name = "MODE", default_value = "2770", value_parser = parse_mode)]
    mode: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    uid: u32,
    gid: u32,
}

fn parse_owner(text: &str) -> Result<Owner, String> {
    let owner = text.split_once(':').and_then(|(uid, gid)| {
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        Some(Owner { uid, gid })
    });
    owner.ok_or_else(|| "it is UID:GID in numbers, such as 65532:20000".into())
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok();
    mode.filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| "it is octal, such as 2770".into())
}

pub(crate) fn run(arguments: &SocketDirArguments) -> Result<ExitCode, Failure> {
    let path = arguments.path.as_path();
    make(path, arguments.owner, arguments.mode)?;
    let Owner { uid, gid } = arguments.owner;
    output::print(&format!(
        "{}: user {uid}, group {gid}, mode {:04o}\n",
        path.display(),
        arguments.mode
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn make(path: &Path, owner: Owner, mode: u32) -> Result<(), String> {
    let failed = |what: &'static str| {
        move |error: std::io::Error| format!("cannot {what} {}: {error}", path.display())
    };
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(failed("make"))?;
    let found = path.symlink_metadata().map_err(failed("look at"))?;
    if !found.is_dir() {
        return Err(format!(
            "{} is a link; name the directory itself",
            path.display()
        ));
    }
    if (found.uid(), found.gid()) != (owner.uid, owner.gid) {
        lchown(path, Some(owner.uid), Some(owner.gid)).map_err(failed("change the owner of"))?;
    }
    // Last: a change of the owner takes the set-group-id bit away.
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).map_err(failed("change the mode of"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_and_modes_are_numbers() {
        let owner = Owner {
            uid: 65532,
            gid: 20000,
        };
        assert_eq!(parse_owner("65532:20000"), Ok(owner));
        for wrong in ["65532", "a:b", ":", "1:-1", "1:2:3"] {
            assert!(parse_owner(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_mode("2770"), Ok(0o2770));
        for wrong in ["", "8", "17777", "rwx"] {
            assert!(parse_mode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_directory_is_made_and_one_that_is_there_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/run");
        let own = root.path().metadata().unwrap();
        let owner = Owner {
            uid: own.uid(),
            gid: own.gid(),
        };
        make(&path, owner, 0o2770).unwrap();
        std::fs::write(path.join("kept"), "").unwrap();
        make(&path, owner, 0o2750).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o2750);
        assert!(path.join("kept").exists());
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let error = make(&link, owner, 0o777).unwrap_err();
        assert!(error.contains("is a link"), "{error}");
    }
}
