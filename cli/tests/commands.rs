//! The commands as their users meet them: exit codes, what is written where, and what is left behind.
//! All on the built-in engine, save the demo, which takes what it finds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A directory for one test; everything that a command puts somewhere by itself goes there, too.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("tmp")).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adjoin"));
        command
            .args(line.split_whitespace())
            .current_dir(self.directory.path())
            .env("TMPDIR", self.path("tmp"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ADJOIN_") {
                command.env_remove(name);
            }
        }
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    fn text(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.text(line)).unwrap()
    }

    /// The one line on standard error of a command that must fail.
    fn error(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.starts_with("adjoin: ") && text.lines().count() == 1,
            "{line}: {text}"
        );
        text
    }

    /// A repository `models` with the digits.
    fn with_models(self) -> Self {
        let directory = self.path("models/digits/1");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::copy(demo("model.onnx"), directory.join("model.onnx")).unwrap();
        std::fs::write(self.path("rten.toml"), "[defaults]\nengine = \"rten\"\n").unwrap();
        self
    }

    /// A server with its sockets in `run`.
    fn serve(&self) -> Server {
        let mut command =
            self.command("serve --model-repository models --socket-dir run --config rten.toml");
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let server = Server(child);
        wait_until(|| self.run("health --socket-dir run").status.success());
        server
    }

    fn is_clean(&self) -> bool {
        std::fs::read_dir(self.path("tmp"))
            .unwrap()
            .next()
            .is_none()
    }
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../demo/digits")
        .join(name)
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(
            Instant::now() < give_up,
            "it did not come about within a minute"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn demo_reads_the_digits_and_leaves_nothing_behind() {
    let place = Place::new();
    let text = place.text("demo");
    let last = text.lines().last().unwrap();
    let values = last.strip_prefix("demo: ").unwrap();
    let value = |key: &str| -> f64 {
        let mut pairs = values.split(' ').map(|pair| pair.split_once('=').unwrap());
        pairs
            .find(|(name, _)| *name == key)
            .unwrap()
            .1
            .parse()
            .unwrap()
    };
    assert!(value("accuracy") >= 0.97, "{last}");
    assert!(
        value("requests") >= 4.0 * 360.0 && value("max_batch") > 1.0,
        "{last}"
    );
    assert!(
        value("p50_us") > 0.0 && value("p99_us") >= value("p50_us"),
        "{last}"
    );
    assert!(value("gathered_bytes") > 0.0, "{last}");
    if text.contains("on rten") {
        // This engine copies what it reads, and the demo says so.
        assert!(value("in_place") == 0.0, "{last}");
        assert!(text.contains("the engine itself copied"), "{text}");
    } else {
        assert!(value("in_place") >= 360.0, "{last}");
    }
    assert!(text.contains('█') && !text.contains('\x1b'), "{text}");
    assert!(place.is_clean());
}

#[test]
fn interrupted_demo_stops_its_processes_and_removes_its_files() {
    let place = Place::new();
    let mut command = place.command("demo");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(|| !place.is_clean());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(place.is_clean());
}

#[test]
fn models_are_loaded_labelled_split_and_unloaded() {
    let place = Place::new().with_models();
    let second = place.path("models/digits/2");
    std::fs::create_dir_all(&second).unwrap();
    std::fs::copy(demo("model.onnx"), second.join("model.onnx")).unwrap();
    let config = "[defaults]\nengine = \"rten\"\nversion_policy = \"all\"\n";
    std::fs::write(place.path("rten.toml"), config).unwrap();
    let line = "serve --model-repository models --socket-dir run --config rten.toml --model-control-mode explicit";
    let child = place.command(line).stderr(Stdio::null()).spawn().unwrap();
    let _server = Server(child);
    wait_until(|| place.run("health --socket-dir run").status.success());
    let table = |line: &str| {
        let text = place.text(line);
        text.lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        table("models --socket-dir run").len(),
        1,
        "nothing is loaded"
    );
    for (line, said) in [
        ("load digits", "digits: loaded\n"),
        ("label digits stable 1", "digits: stable is version 1\n"),
        ("split digits 1=3 2=1", "digits: split set\n"),
    ] {
        assert_eq!(place.text(&format!("models {line} --socket-dir run")), said);
    }
    let models = table("models --socket-dir run");
    assert!(
        models[1].starts_with("digits 1 ready stable 3 rten"),
        "{models:?}"
    );
    let models = place.json("models --json --socket-dir run");
    assert_eq!(models["models"][0]["labels"], serde_json::json!(["stable"]));
    assert_eq!(models["models"][1]["weight"], 1);
    for (line, said) in [
        ("label digits stable --remove", "digits: stable removed\n"),
        ("split digits --remove", "digits: split removed\n"),
        ("unload digits", "digits: unloaded\n"),
    ] {
        assert_eq!(place.text(&format!("models {line} --socket-dir run")), said);
    }
    for (line, word) in [
        ("load other", "no such model"),
        ("unload digits", "not loaded"),
        ("split digits 1=1 1=2", "version 1 has two weights"),
    ] {
        let error = place.error(&format!("models {line} --socket-dir run"));
        assert!(error.contains(word), "{error}");
    }
    // The variable that names the server is there for all of them.
    let output = place
        .command("models load digits")
        .env("ADJOIN_SOCKET_DIR", "run")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(place.run("models split digits 0=1").status.code(), Some(2));
    let misplaced = "serve --model-repository models --socket-dir run2 --load-model digits";
    assert!(
        place
            .error(misplaced)
            .contains("--model-control-mode explicit")
    );
}

#[test]
fn a_server_is_asked_used_and_drained() {
    let place = Place::new().with_models();
    let mut server = place.serve();
    assert_eq!(place.text("health --socket-dir run"), "serving\n");
    assert_eq!(
        place.text("health --socket-dir run --model digits"),
        "serving\n"
    );
    let other = place.run("health --socket-dir run --model other");
    assert_eq!(
        (other.status.code(), other.stdout.as_slice()),
        (Some(1), &b"no such model\n"[..])
    );

    write_images(&place.path("images.npy"));
    let written =
        place.text("infer digits --input image=images.npy --output-dir out --socket-dir run");
    assert_eq!(written, "scores: FP32 [2, 10] -> out/scores.npy\n");
    let scores = std::fs::read(place.path("out/scores.npy")).unwrap();
    assert_eq!(scores.len() % 64, 2 * 10 * 4 % 64);

    let models = place.json("models --json --socket-dir run");
    assert_eq!(models["models"][0]["engine"], "rten");
    assert_eq!(models["models"][0]["statistics"]["inference_count"], 2);
    assert!(
        place
            .text("models --socket-dir run")
            .contains("image FP32 [batch,1,8,8]")
    );
    assert_eq!(
        place.json("sessions --json --socket-dir run")["sessions"],
        Value::Array(vec![])
    );
    let doctor = place.json("doctor --json --socket-dir run");
    let findings = doctor["findings"].as_array().unwrap();
    let server_line = findings
        .iter()
        .find(|finding| finding["name"] == "server")
        .unwrap();
    assert!(
        server_line["found"]
            .as_str()
            .unwrap()
            .contains("1 model versions ready"),
        "{server_line}"
    );

    assert_eq!(place.text("drain --wait --socket-dir run"), "ended\n");
    assert!(server.0.wait().unwrap().success());
    assert!(
        place
            .error("health --socket-dir run")
            .contains("no server in run")
    );
}

/// Two pictures of the demo, as the model takes them.
fn write_images(path: &Path) {
    let images = std::fs::read(demo("test_images.npy")).unwrap();
    let data = images.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    let pixels = images[data..data + 2 * 64]
        .iter()
        .flat_map(|&ink| f32::from(ink).to_le_bytes());
    let mut text = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 8, 8), }".to_owned();
    while !(10 + text.len() + 1).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
    file.extend(text.bytes());
    file.extend(pixels);
    std::fs::write(path, file).unwrap();
}

#[test]
fn bench_has_its_keys_on_every_way() {
    let place = Place::new().with_models();
    for transport in ["ring", "grpc-signal", "grpc-body"] {
        let line = format!(
            "bench digits --model-repository models --engine rten --seconds 0.1 --clients 2 --pipeline 2 --threads 1 --transport {transport} --json"
        );
        let report = place.json(&line);
        for key in [
            "requests_per_s",
            "p50_us",
            "p99_us",
            "p999_us",
            "in_process_p50_us",
            "in_process_p99_us",
            "server_cpu_us_per_request",
            "bytes_copied",
        ] {
            assert!(
                report[key].as_f64().is_some_and(|value| value > 0.0),
                "{transport} {key}: {report}"
            );
        }
        let fixed =
            ["model", "engine", "clients", "batch", "transport"].map(|key| report[key].to_string());
        assert_eq!(
            fixed,
            [
                "\"digits\"",
                "\"rten\"",
                "2",
                "1",
                &format!("{transport:?}")
            ]
        );
        assert!(place.is_clean());
    }
}

#[test]
fn errors_are_one_line_that_says_what_to_do() {
    let place = Place::new().with_models();
    for (line, words) in [
        ("models --socket-dir none", "adjoin serve"),
        (
            "infer digits --input image=none.npy --output-dir out",
            "cannot read none.npy",
        ),
        ("bench other --model-repository models", "it has digits"),
        (
            "bench digits --model-repository models --batch 33",
            "at most 32",
        ),
        (
            "bench digits --model-repository models --engine none",
            "engine is none; it is \"onnxruntime\", \"rten\" or \"tensorrt\"",
        ),
        ("demo --onnxruntime none.so", "no onnxruntime library found"),
        (
            "serve --model-repository none --socket-dir run --log off",
            "cannot read model repository none",
        ),
        (
            "serve --model-repository models --socket-dir run --log inof",
            "\"inof\" is no level",
        ),
    ] {
        let text = place.error(line);
        assert!(text.contains(words), "{line}: {text}");
    }
    assert!(place.is_clean());
    for wrong in [
        "",
        "bench digits",
        "infer digits --input image --output-dir out",
        "health --timeout-ms 0",
    ] {
        assert_eq!(place.run(wrong).status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn a_reader_that_stops_reading_is_no_failure() {
    let place = Place::new();
    let mut child = place
        .command("doctor")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
