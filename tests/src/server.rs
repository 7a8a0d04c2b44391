//! A server in a process of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use adjoin_client::{Client, ClientOptions};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{binary, onnxruntime, root, wait_for};

/// What a test server serves, and how.
#[derive(Clone, Debug)]
pub struct Setup {
    models: Vec<(String, u64, PathBuf)>,
    config: String,
    files: Vec<(String, String)>,
    versions_without_file: Vec<String>,
    is_on_onnxruntime: bool,
    program: Option<PathBuf>,
    flags: Vec<String>,
    environment: Vec<(String, PathBuf)>,
    group: Option<PathBuf>,
}

/// A running server. Killed, and its directories removed, when dropped.
#[derive(Debug)]
pub struct TestServer {
    directory: TempDir,
    setup: Setup,
    child: Child,
}

/// The file of a model that is checked in for tests.
#[must_use]
pub fn model_file(name: &str) -> PathBuf {
    match name {
        "digits" => root().join("demo/digits/model.onnx"),
        other => root()
            .join("tests/models")
            .join(other)
            .with_extension("onnx"),
    }
}

impl Setup {
    /// Serves these models as version 1 each, on ONNX Runtime with one thread.
    #[must_use]
    pub fn new(models: &[&str]) -> Self {
        let models = models
            .iter()
            .map(|name| ((*name).to_owned(), 1, model_file(name)))
            .collect();
        let config = "[defaults]\nintra_op_threads = 1\n".to_owned();
        Self {
            models,
            config,
            files: Vec::new(),
            versions_without_file: Vec::new(),
            is_on_onnxruntime: true,
            program: None,
            flags: Vec::new(),
            environment: Vec::new(),
            group: None,
        }
    }

    /// The same on the built-in engine.
    #[must_use]
    pub fn on_rten(mut self) -> Self {
        self.is_on_onnxruntime = false;
        self.config.push_str("engine = \"rten\"\n");
        self
    }

    /// Adds a version of a model.
    #[must_use]
    pub fn version(mut self, name: &str, version: u64, file: &Path) -> Self {
        self.models
            .push((name.to_owned(), version, file.to_owned()));
        self
    }

    /// Adds a file to the repository, such as `add/config.pbtxt`.
    #[must_use]
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files.push((path.to_owned(), text.to_owned()));
        self
    }

    /// Adds version 1 of a model that has nothing but a `config.pbtxt`.
    #[must_use]
    pub fn configured(mut self, name: &str, text: &str) -> Self {
        self.versions_without_file.push(format!("{name}/1"));
        self.file(&format!("{name}/config.pbtxt"), text)
    }

    /// Adds lines to the configuration file.
    #[must_use]
    pub fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }

    /// Adds flags to the command.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// Adds a variable to the server's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &Path) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts another program than the `adjoin` that was built beside the test.
    #[must_use]
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// Has the server run in a control group, by the file that takes processes in.
    #[must_use]
    pub fn in_group(mut self, processes: &Path) -> Self {
        self.group = Some(processes.to_owned());
        self
    }

    /// Starts the server and waits until it takes sessions.
    #[must_use]
    pub fn start(self) -> TestServer {
        let directory = self.lay_out();
        let child = self.spawn(directory.path(), &directory.path().join("run"));
        let mut server = TestServer {
            directory,
            setup: self,
            child,
        };
        server.wait_until_ready();
        server
    }

    /// Writes repository and configuration into a directory.
    #[must_use]
    pub fn lay_out(&self) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("models")).unwrap();
        for (name, version, file) in &self.models {
            let to = directory
                .path()
                .join("models")
                .join(name)
                .join(version.to_string());
            std::fs::create_dir_all(&to).unwrap();
            std::fs::copy(file, to.join("model.onnx"))
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
        for path in &self.versions_without_file {
            std::fs::create_dir_all(directory.path().join("models").join(path)).unwrap();
        }
        for (path, text) in &self.files {
            std::fs::write(directory.path().join("models").join(path), text).unwrap();
        }
        std::fs::write(directory.path().join("adjoin.toml"), &self.config).unwrap();
        directory
    }

    /// The program that is started.
    #[must_use]
    pub fn path_of_program(&self) -> PathBuf {
        self.program.clone().unwrap_or_else(|| binary("adjoin"))
    }

    /// What is added to its environment.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &Path)> {
        let variables = self.environment.iter();
        variables.map(|(name, value)| (name.as_str(), value.as_path()))
    }

    /// Starts the command over a directory that was laid out.
    #[must_use]
    pub fn spawn(&self, directory: &Path, socket_dir: &Path) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(directory.join("server.log"))
            .unwrap();
        let program = self.path_of_program();
        let mut command = match &self.group {
            None => Command::new(program),
            Some(processes) => {
                // In the group from its first page on.
                let mut shell = Command::new("sh");
                shell
                    .args(["-c", "echo $$ >\"$0\" && exec \"$@\""])
                    .args([processes, &program]);
                shell
            }
        };
        command
            .env_remove("ADJOIN_ONNXRUNTIME")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
            .arg("serve")
            .arg("--model-repository")
            .arg(directory.join("models"));
        command
            .arg("--socket-dir")
            .arg(socket_dir)
            .arg("--config")
            .arg(directory.join("adjoin.toml"));
        if self.is_on_onnxruntime {
            command.arg("--onnxruntime").arg(onnxruntime());
        }
        command
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }
}

/// A server whose place another one has taken. Killed when dropped.
#[derive(Debug)]
pub struct Former {
    child: Child,
}

impl Former {
    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.id()), signal).unwrap();
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the former server ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Former {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl TestServer {
    fn wait_until_ready(&mut self) {
        let path = self.socket_dir();
        wait_for("server is ready", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!(
                    "the server ended at its start with {status}:\n{}",
                    self.log()
                );
            }
            adjoin_shm::socket::AttachSocket::connect(&path.join("attach.sock")).ok()
        });
    }

    /// Where its sockets are.
    #[must_use]
    pub fn socket_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// A directory of the test's own that goes with the server.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Puts a version into its repository, complete at once.
    pub fn put_version(&self, model: &str, version: u64, file: &Path) {
        let to = self.directory.path().join("models").join(model);
        let new = self.directory.path().join("new");
        std::fs::create_dir_all(&to).unwrap();
        std::fs::create_dir(&new).unwrap();
        std::fs::copy(file, new.join("model.onnx")).unwrap();
        let to = to.join(version.to_string());
        let _ = std::fs::remove_dir_all(&to);
        std::fs::rename(new, to).unwrap();
    }

    /// Takes a model, or with `MODEL/VERSION` a version, out of its repository.
    pub fn remove(&self, what: &str) {
        let path = self.directory.path().join("models").join(what);
        std::fs::remove_dir_all(path).unwrap();
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("server.log")).unwrap_or_default()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A session with small regions.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_with(ClientOptions::new())
    }

    /// A session with other options, but small regions.
    #[must_use]
    pub fn client_with(&self, options: ClientOptions) -> Client {
        options
            .request_bytes(1 << 20)
            .response_bytes(1 << 20)
            .connect(self.socket_dir())
            .unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.id()), signal).unwrap();
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("server ends", || self.child.try_wait().unwrap())
    }

    /// Starts it again in the same directories.
    pub fn restart(&mut self) {
        self.child = self.setup.spawn(self.directory.path(), &self.socket_dir());
        self.wait_until_ready();
    }

    /// Starts another one in the same directories, and waits until it has taken over; the setup has `--takeover`.
    pub fn succeed(&mut self) -> Former {
        let takeovers = |server: &Self| server.log().matches("took over").count();
        let before = takeovers(self);
        let next = self.setup.spawn(self.directory.path(), &self.socket_dir());
        let former = Former {
            child: std::mem::replace(&mut self.child, next),
        };
        wait_for("another server takes over", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the next server ended with {status}:\n{}", self.log());
            }
            (takeovers(self) > before).then_some(())
        });
        former
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// A number from its `/proc/PID/status`, such as `VmRSS` in KiB.
    #[must_use]
    pub fn proc_status(&self, key: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// How many descriptors it has open.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- server's log ---\n{}", self.log());
        }
    }
}

/// A process number for system calls.
#[must_use]
pub fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}
