//! A server with a device: the command, built with the feature `tensorrt`, on a CUDA driver and a TensorRT of ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use adjoin_control_api::inference as api;
use adjoin_control_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adjoin_fake_nvinfer::Plan;
use fake_cuda::harness::FakeCuda;
use fake_cuda::report::Report;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::http;
use crate::process::ClientProcess;
use crate::server::{Setup, TestServer};

/// What names the command if it is not the one beside the test.
const PROGRAM: &str = "ADJOIN_GPU_SERVER";

/// What such a server serves, on what machine.
#[derive(Clone, Debug)]
pub struct GpuSetup {
    fake: FakeCuda,
    setup: Setup,
}

/// One that runs.
#[derive(Debug)]
pub struct GpuServer {
    server: TestServer,
    metrics: String,
    http: String,
    machine: Machine,
}

/// Where the driver and its report are.
#[derive(Debug)]
struct Machine {
    directory: TempDir,
}

impl Machine {
    /// Where the driver is.
    fn driver(&self) -> PathBuf {
        self.directory.path().join("driver")
    }

    fn report(&self) -> PathBuf {
        self.directory.path().join("report.json")
    }
}

impl GpuSetup {
    /// A machine with this driver, and these models on the built-in engine beside plans.
    #[must_use]
    pub fn new(fake: FakeCuda, models: &[&str]) -> Self {
        let mut setup = Setup::new(models).on_rten();
        if let Some(program) = std::env::var_os(PROGRAM) {
            setup = setup.program(Path::new(&program));
        }
        Self { fake, setup }
    }

    /// Adds a plan as version 1 of a model; `config` are lines for its `config.pbtxt`.
    ///
    /// # Panics
    /// Never: plans of our own are text.
    #[must_use]
    pub fn plan(self, name: &str, plan: Plan, config: &str) -> Self {
        let text = String::from_utf8(plan.into_bytes()).unwrap();
        self.plan_text(name, &text, config)
    }

    /// The same with any text in the place of a plan.
    #[must_use]
    pub fn plan_text(mut self, name: &str, text: &str, config: &str) -> Self {
        let config = format!("platform: \"tensorrt_plan\"\n{config}\n");
        self.setup = self.setup.configured(name, &config);
        self.setup = self.setup.file(&format!("{name}/1/model.plan"), text);
        self
    }

    /// Has ONNX Runtime, whose providers for the device are ours, beside the other engines. Models on it say so.
    ///
    /// # Panics
    /// If its library was not built beside the test.
    #[must_use]
    pub fn onnxruntime(mut self) -> Self {
        let library = fake_onnxruntime::harness::library();
        let library = library.to_str().unwrap();
        self.setup = self.setup.flags(&["--onnxruntime", library]);
        self.setup = self
            .setup
            .env(fake_onnxruntime::harness::REAL, &crate::onnxruntime());
        self
    }

    /// Adds a file to the repository, such as `add/config.pbtxt`.
    #[must_use]
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.setup = self.setup.file(path, text);
        self
    }

    /// Adds lines to the configuration file.
    #[must_use]
    pub fn config(mut self, lines: &str) -> Self {
        self.setup = self.setup.config(lines);
        self
    }

    /// Adds flags to the command.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.setup = self.setup.flags(flags);
        self
    }

    /// The setup on its machine, with TensorRT.
    fn on_machine(self) -> (Setup, Machine) {
        let machine = Machine {
            directory: tempfile::tempdir().unwrap(),
        };
        let driver = machine.driver();
        std::fs::create_dir(&driver).unwrap();
        let mut setup = self.setup;
        for (name, value) in self.fake.environment(&driver, &machine.report()) {
            setup = setup.env(name, Path::new(&value));
        }
        let library = adjoin_fake_nvinfer::directory();
        let library = library.to_str().unwrap();
        (setup.flags(&["--tensorrt", library]), machine)
    }

    /// Starts it and waits until it takes sessions.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(self) -> GpuServer {
        let (setup, machine) = self.on_machine();
        let (metrics, http) = (http::free_address(), http::free_address());
        let setup = setup.flags(&["--metrics-addr", &metrics, "--http-addr", &http]);
        check(&setup);
        GpuServer {
            server: setup.start(),
            metrics,
            http,
            machine,
        }
    }

    /// Starts one that is not to come up: what it has logged when it has ended.
    ///
    /// # Panics
    /// If it comes up.
    #[must_use]
    pub fn start_in_vain(self) -> String {
        let (setup, _machine) = self.on_machine();
        check(&setup);
        let directory = setup.lay_out();
        let mut child = setup.spawn(directory.path(), &directory.path().join("run"));
        let status = crate::wait_for("the server ends", || {
            assert!(
                !directory.path().join("run/attach.sock").exists(),
                "the server came up"
            );
            child.try_wait().unwrap()
        });
        assert_eq!(status.code(), Some(1));
        std::fs::read_to_string(directory.path().join("server.log")).unwrap()
    }

    /// Runs another subcommand on the same machine; what it wrote.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run(self, arguments: &[&str]) -> std::process::Output {
        let (setup, _machine) = self.on_machine();
        check(&setup);
        let mut command = Command::new(setup.path_of_program());
        command.envs(setup.variables()).args(arguments);
        command.output().unwrap()
    }
}

/// That the command is one that knows TensorRT.
fn check(setup: &Setup) {
    let help = Command::new(setup.path_of_program())
        .args(["serve", "--help"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&help.stdout).contains("--tensorrt"),
        "{} knows no TensorRT: `make gpu` builds one that does",
        setup.path_of_program().display()
    );
}

impl std::ops::Deref for GpuServer {
    type Target = TestServer;

    fn deref(&self) -> &TestServer {
        &self.server
    }
}

impl GpuServer {
    /// `adjoin-test-device-client` on the same machine, with these arguments: a process with a driver of its own.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn device_client(&self, arguments: &[&str]) -> ClientProcess {
        let mut command = Command::new(crate::binary("adjoin-test-device-client"));
        command.arg(self.server.socket_dir()).args(arguments);
        self.on_its_driver(&mut command);
        ClientProcess::of(command)
    }

    /// Has a command find the driver that the server has; it counts apart, and nothing fails there.
    pub fn on_its_driver(&self, command: &mut Command) {
        command.env("LD_LIBRARY_PATH", self.machine.driver());
        for name in ["FAKE_CUDA_FAIL", "FAKE_CUDA_DELAY_US", "FAKE_CUDA_REPORT"] {
            command.env_remove(name);
        }
    }

    /// The server.
    pub fn server(&mut self) -> &mut TestServer {
        &mut self.server
    }

    /// Its HTTP address.
    #[must_use]
    pub fn http(&self) -> &str {
        &self.http
    }

    /// Its address for metrics.
    #[must_use]
    pub fn metrics_address(&self) -> &str {
        &self.metrics
    }

    /// A metric, by its name with all labels; 0 if it is not there.
    #[must_use]
    pub fn metric(&self, name: &str) -> u64 {
        let text = http::get(&self.metrics, "/metrics");
        let value = http::metric(&text, name).unwrap_or(0.0);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts are far below 2^53, and none is below 0"
        )]
        let count = value as u64;
        count
    }

    /// Bytes between host and device that took a path, one way: `to_device` or `to_host`.
    #[must_use]
    pub fn bytes(&self, direction: &str, path: &str) -> u64 {
        self.metric(&format!(
            "adjoin_device_bytes_total{{direction=\"{direction}\",path=\"{path}\"}}"
        ))
    }

    /// Regions of sessions in a state.
    #[must_use]
    pub fn regions(&self, state: &str) -> u64 {
        self.metric(&format!("adjoin_device_regions{{state=\"{state}\"}}"))
    }

    /// Waits until the device knows the regions of so many sessions, and no others.
    pub fn wait_for_regions(&self, sessions: u64) {
        crate::wait_for("regions are registered", || {
            let counts = ["registered", "pending", "refused", "retired"];
            let counts = counts.map(|state| self.regions(state));
            (counts == [2 * sessions, 0, 0, 0]).then_some(())
        });
    }

    /// Whether a model takes requests, by the Open Inference Protocol.
    ///
    /// # Panics
    /// If there is no answer.
    #[must_use]
    pub fn is_model_ready(&self, name: &str) -> bool {
        let control = self.server.control();
        let mut client = GrpcInferenceServiceClient::new(control.channel());
        let request = api::ModelReadyRequest {
            name: name.into(),
            version: String::new(),
        };
        let ready = control.wait(client.model_ready(request)).unwrap();
        ready.into_inner().ready
    }

    /// Whether the server takes new clients, by the same.
    ///
    /// # Panics
    /// If there is no answer.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let control = self.server.control();
        let mut client = GrpcInferenceServiceClient::new(control.channel());
        let ready = control.wait(client.server_ready(api::ServerReadyRequest {}));
        ready.unwrap().into_inner().ready
    }

    /// State and reason of version 1 of a model in the repository's index.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn index(&self, name: &str) -> (String, String) {
        let control = self.server.control();
        let mut client = GrpcInferenceServiceClient::new(control.channel());
        let request = api::RepositoryIndexRequest::default();
        let index = control.wait(client.repository_index(request)).unwrap();
        let mut models = index.into_inner().models.into_iter();
        let line = models.find(|line| line.name == name).unwrap();
        (line.state, line.reason)
    }

    /// Ends it as an operator does; what the driver has counted.
    ///
    /// # Panics
    /// If it does not end well.
    #[must_use]
    pub fn end(mut self) -> Report {
        self.server.signal(Signal::TERM);
        let status = self.server.wait();
        assert_eq!(status.code(), Some(0), "{}", self.server.log());
        let text = std::fs::read_to_string(self.machine.report()).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}
