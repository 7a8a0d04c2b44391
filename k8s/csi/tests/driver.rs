//! The driver as the kubelet meets it: a process, two sockets, real mounts. Needs root; without it the tests say that they
//! were skipped.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::collections::HashMap;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use adjoin_csi::DRIVER;
use adjoin_csi::api::csi::identity_client::IdentityClient;
use adjoin_csi::api::csi::node_client::NodeClient;
use adjoin_csi::api::csi::volume_capability::{AccessType, BlockVolume, MountVolume};
use adjoin_csi::api::csi::{
    GetPluginInfoRequest, NodeGetInfoRequest, NodePublishVolumeRequest, NodeUnpublishVolumeRequest,
    ProbeRequest, VolumeCapability,
};
use adjoin_csi::api::registration::registration_client::RegistrationClient;
use adjoin_csi::api::registration::{InfoRequest, RegistrationStatus};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const POD: &str = "3a1e/volumes/kubernetes.io~csi/adjoin-sockets";

/// A driver over directories of its own. Killed, its mounts undone and the directories removed, when dropped.
struct Driver {
    directory: TempDir,
    child: Child,
    runtime: Runtime,
}

impl Driver {
    /// `None`, with a line that says so, where the user is not root.
    fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounts need root");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("pods").join(POD)).unwrap();
        std::fs::create_dir(directory.path().join("run")).unwrap();
        let child = Self::spawn(directory.path());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let driver = Self {
            child,
            runtime: runtime.unwrap(),
            directory,
        };
        driver.wait_until_ready();
        Some(driver)
    }

    fn spawn(directory: &Path) -> Child {
        Command::new(env!("CARGO_BIN_EXE_adjoin-csi"))
            .arg("--endpoint")
            .arg(directory.join("csi.sock"))
            .arg("--registration")
            .arg(directory.join("reg.sock"))
            .arg("--socket-dir")
            .arg(directory.join("run"))
            .arg("--pods-dir")
            .arg(directory.join("pods"))
            .args([
                "--node-name",
                "node-7",
                "--kubelet-endpoint",
                "/kubelet/csi.sock",
            ])
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn wait_until_ready(&self) {
        let end = Instant::now() + Duration::from_secs(30);
        while UnixStream::connect(self.path("reg.sock")).is_err() {
            assert!(Instant::now() < end, "the driver does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn target(&self) -> PathBuf {
        self.path("pods").join(POD).join("mount")
    }

    fn channel(&self, socket: &str) -> Channel {
        let path = self.path(socket);
        let connector = tower::service_fn(move |_: tonic::transport::Uri| {
            let path = path.clone();
            async move {
                tokio::net::UnixStream::connect(path)
                    .await
                    .map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("http://csi");
        self.runtime
            .block_on(endpoint.connect_with_connector(connector))
            .unwrap()
    }

    /// The code of the answer, and its text where it is an error.
    fn publish(&self, request: NodePublishVolumeRequest) -> (Code, String) {
        let mut node = NodeClient::new(self.channel("csi.sock"));
        match self.runtime.block_on(node.node_publish_volume(request)) {
            Ok(_) => (Code::Ok, String::new()),
            Err(status) => (status.code(), status.message().to_owned()),
        }
    }

    fn unpublish(&self, target: &Path) -> (Code, String) {
        let mut node = NodeClient::new(self.channel("csi.sock"));
        let request = NodeUnpublishVolumeRequest {
            volume_id: "csi-1".into(),
            target_path: target.to_str().unwrap().into(),
        };
        match self.runtime.block_on(node.node_unpublish_volume(request)) {
            Ok(_) => (Code::Ok, String::new()),
            Err(status) => (status.code(), status.message().to_owned()),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let flags = rustix::mount::UnmountFlags::DETACH;
        while rustix::mount::unmount(self.target(), flags).is_ok() {}
    }
}

/// What the kubelet sends for an inline volume.
fn request(target: &Path) -> NodePublishVolumeRequest {
    let access_type = Some(AccessType::Mount(MountVolume {}));
    NodePublishVolumeRequest {
        volume_id: "csi-1".into(),
        target_path: target.to_str().unwrap().into(),
        volume_capability: Some(VolumeCapability { access_type }),
        readonly: true,
        volume_context: HashMap::from([
            ("csi.storage.k8s.io/ephemeral".into(), "true".into()),
            ("csi.storage.k8s.io/pod.name".into(), "digits".into()),
        ]),
    }
}

fn mounts_at(target: &Path) -> usize {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let target = target.to_str().unwrap();
    text.lines()
        .filter(|line| line.split(' ').nth(4) == Some(target))
        .count()
}

#[test]
fn the_kubelet_learns_what_it_has_to() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let mut identity = IdentityClient::new(driver.channel("csi.sock"));
    let info = identity.get_plugin_info(GetPluginInfoRequest {});
    let info = driver.runtime.block_on(info).unwrap().into_inner();
    assert_eq!(info.name, DRIVER);
    let ready = driver.runtime.block_on(identity.probe(ProbeRequest {}));
    assert_eq!(ready.unwrap().into_inner().ready, Some(true));
    let mut node = NodeClient::new(driver.channel("csi.sock"));
    let node = driver
        .runtime
        .block_on(node.node_get_info(NodeGetInfoRequest {}));
    assert_eq!(node.unwrap().into_inner().node_id, "node-7");
    let mut registration = RegistrationClient::new(driver.channel("reg.sock"));
    let info = driver
        .runtime
        .block_on(registration.get_info(InfoRequest {}));
    let info = info.unwrap().into_inner();
    assert_eq!(
        (
            info.r#type.as_str(),
            info.name.as_str(),
            info.endpoint.as_str()
        ),
        ("CSIPlugin", DRIVER, "/kubelet/csi.sock")
    );
    assert_eq!(info.supported_versions, ["1.0.0"]);
    let registered = registration.notify_registration_status(RegistrationStatus {
        plugin_registered: true,
        error: String::new(),
    });
    driver.runtime.block_on(registered).unwrap();
}

#[test]
fn a_pod_connects_through_the_volume_and_can_change_nothing() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let (run, target) = (driver.path("run"), driver.target());
    let _first = UnixListener::bind(run.join("attach.sock")).unwrap();
    // As often as the kubelet likes.
    for _ in 0..3 {
        assert_eq!(driver.publish(request(&target)), (Code::Ok, String::new()));
        assert_eq!(mounts_at(&target), 1);
    }
    UnixStream::connect(target.join("attach.sock")).unwrap();
    let errors = [
        std::fs::write(target.join("file"), ""),
        std::fs::remove_file(target.join("attach.sock")),
        std::fs::rename(target.join("attach.sock"), target.join("other")),
    ];
    for error in errors {
        assert_eq!(
            error.unwrap_err().kind(),
            std::io::ErrorKind::ReadOnlyFilesystem
        );
    }
    // The next server's socket is another file of that name.
    std::fs::remove_file(run.join("attach.sock")).unwrap();
    assert!(UnixStream::connect(target.join("attach.sock")).is_err());
    let second = UnixListener::bind(run.join("attach.sock")).unwrap();
    UnixStream::connect(target.join("attach.sock")).unwrap();
    second.accept().unwrap();

    for _ in 0..2 {
        assert_eq!(driver.unpublish(&target), (Code::Ok, String::new()));
        assert!(!target.exists());
    }
    assert!(
        run.join("attach.sock").exists(),
        "what is published is not removed"
    );
    // The kubelet may have removed the pod's folder already.
    std::fs::remove_dir_all(driver.path("pods/3a1e")).unwrap();
    assert_eq!(driver.unpublish(&target), (Code::Ok, String::new()));
}

#[test]
fn volumes_outlive_the_driver_and_the_next_one_takes_them_away() {
    let Some(mut driver) = Driver::start() else {
        return;
    };
    let target = driver.target();
    assert_eq!(driver.publish(request(&target)).0, Code::Ok);
    let pid = Pid::from_child(&driver.child);
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(driver.child.wait().unwrap().code(), Some(0));
    assert!(!driver.path("reg.sock").exists());
    assert_eq!(mounts_at(&target), 1);
    driver.child = Driver::spawn(driver.directory.path());
    driver.wait_until_ready();
    assert_eq!(driver.publish(request(&target)).0, Code::Ok);
    assert_eq!(mounts_at(&target), 1);
    assert_eq!(driver.unpublish(&target).0, Code::Ok);
    assert_eq!(mounts_at(&target), 0);
}

#[test]
fn a_mount_that_can_be_written_is_made_read_only() {
    let Some(driver) = Driver::start() else {
        return;
    };
    // What a driver leaves that is killed between the two steps.
    let target = driver.target();
    std::fs::create_dir(&target).unwrap();
    rustix::mount::mount_bind(driver.path("run"), &target).unwrap();
    std::fs::write(target.join("probe"), "").unwrap();
    assert_eq!(driver.publish(request(&target)).0, Code::Ok);
    assert_eq!(mounts_at(&target), 1);
    assert!(std::fs::write(target.join("probe"), "").is_err());
}

#[test]
fn wrong_requests_are_refused_and_mount_nothing() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let target = driver.target();
    let is_refused = |request: NodePublishVolumeRequest, code: Code, text: &str| {
        let target = PathBuf::from(&request.target_path);
        let (got, message) = driver.publish(request);
        assert!(got == code && message.contains(text), "{got:?} {message}");
        assert_eq!(mounts_at(&target), 0);
    };
    let with = |change: &dyn Fn(&mut NodePublishVolumeRequest)| {
        let mut request = request(&target);
        change(&mut request);
        request
    };
    let invalid = Code::InvalidArgument;
    is_refused(with(&|r| r.volume_id.clear()), invalid, "no id");
    is_refused(with(&|r| r.readonly = false), invalid, "readOnly: true");
    is_refused(with(&|r| r.volume_context.clear()), invalid, "inline");
    is_refused(with(&|r| r.volume_capability = None), invalid, "capability");
    let block = Some(AccessType::Block(BlockVolume {}));
    let block = Some(VolumeCapability { access_type: block });
    is_refused(with(&|r| r.volume_capability = block), invalid, "block");

    // Places.
    let outside = tempfile::tempdir().unwrap();
    let link = driver.path("pods/link");
    symlink(outside.path(), &link).unwrap();
    let places = [
        (PathBuf::from("pods/x/mount"), "not absolute"),
        (driver.path("pods").join(POD).join("../mount"), "\"..\""),
        (driver.path("mount"), "not beneath"),
        (driver.path("pods/mount"), "not beneath"),
        (outside.path().join("mount"), "not beneath"),
        (outside.path().join("missing/mount"), "not beneath"),
        (link.join("mount"), "not beneath"),
        (PathBuf::new(), "not absolute"),
    ];
    for (place, text) in places {
        is_refused(request(&place), invalid, text);
        let (code, message) = driver.unpublish(&place);
        assert!(
            code == invalid && message.contains(text),
            "{place:?} {code:?} {message}"
        );
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);

    // What is there already.
    let taken = Code::FailedPrecondition;
    std::fs::write(&target, "").unwrap();
    is_refused(request(&target), taken, "no directory");
    std::fs::remove_file(&target).unwrap();
    symlink(outside.path(), &target).unwrap();
    is_refused(request(&target), taken, "no directory");
    std::fs::remove_file(&target).unwrap();
    std::fs::create_dir_all(target.join("data")).unwrap();
    is_refused(request(&target), taken, "has files");
    assert_eq!(driver.unpublish(&target).0, Code::Internal);
    assert!(
        target.join("data").exists(),
        "a volume's directory with files in it is not ours to empty"
    );
    std::fs::remove_dir_all(&target).unwrap();

    // No server yet; the kubelet tries again.
    std::fs::remove_dir(driver.path("run")).unwrap();
    is_refused(request(&target), Code::Unavailable, "no adjoin server");
    std::fs::create_dir(driver.path("run")).unwrap();
    assert_eq!(driver.publish(request(&target)).0, Code::Ok);
}
