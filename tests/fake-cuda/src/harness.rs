//! Tests in processes of their own, with this driver as theirs.
//!
//! A program loads one driver, once, from where the loader looks when it starts. So a test that wants this one runs
//! again in a child that is started for it: [`FakeCuda::run`] starts the test's own binary with the one test to run.

use std::ffi::{OsString, c_char};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::driver::device_memory::Backing;
use crate::report::Report;

/// Tells a child that it is the one that runs the test's body.
const INSIDE: &str = "FAKE_CUDA_INSIDE";
/// Set: tests run with the machine's driver.
const REAL: &str = "ADJOIN_REAL_CUDA";

/// A driver for one test, with what it is to do wrong.
#[derive(Clone, Debug, Default)]
pub struct FakeCuda {
    variables: Vec<(&'static str, String)>,
    is_absent: bool,
    lacks: Vec<&'static str>,
}

/// By which the driver names device 0.
pub const DEVICE_UUID: [u8; 16] = *b"fake-cuda-0000\0\0";

/// A descriptor of device memory such as this driver gives, for tests that play a client and have no driver.
///
/// # Panics
/// If the system has no memory for it.
#[must_use]
pub fn device_memory_file(byte_size: u64) -> OwnedFd {
    let file = rustix::fs::memfd_create(Backing::name(0), rustix::fs::MemfdFlags::CLOEXEC);
    let file = file.expect("a memory file");
    rustix::fs::ftruncate(&file, byte_size).expect("its size");
    file
}

impl FakeCuda {
    /// One device of 1 GiB that does everything right, at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No driver at all.
    #[must_use]
    pub fn absent() -> Self {
        Self {
            is_absent: true,
            ..Self::default()
        }
    }

    /// A driver that is older: it has no functions of these names.
    #[must_use]
    pub fn lacking(mut self, functions: &[&'static str]) -> Self {
        self.lacks.extend(functions);
        self
    }

    /// Any setting, by the name of its variable: see `driver::settings`.
    #[must_use]
    pub fn set(mut self, name: &'static str, value: impl ToString) -> Self {
        self.variables.push((name, value.to_string()));
        self
    }

    /// Every operation takes this long: microseconds, or a range as `0-500`.
    #[must_use]
    pub fn delay_us(self, delay: impl ToString) -> Self {
        self.set("FAKE_CUDA_DELAY_US", delay)
    }

    /// Failures, as `NAME:N:CODE`, divided by commas.
    #[must_use]
    pub fn fail(self, failures: impl ToString) -> Self {
        self.set("FAKE_CUDA_FAIL", failures)
    }

    /// Runs `body` in a child with this driver, and returns what the driver counted. In the child itself it runs
    /// `body` and ends the process.
    ///
    /// `test` is the name of the calling test as the test binary lists it.
    ///
    /// # Panics
    /// If the child fails: what it printed is shown.
    pub fn run(&self, test: &str, body: impl FnOnce()) -> Report {
        if std::env::var_os(INSIDE).is_some() {
            body();
            // What a driver leaves to the end of a process happens now, and no other test may run here.
            std::process::exit(0);
        }
        let directory = tempfile::tempdir().expect("a directory for the driver");
        let report = directory.path().join("report.json");
        let mut command = Command::new(std::env::current_exe().expect("the test's own binary"));
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        command.env(INSIDE, "1");
        self.apply(&mut command, directory.path(), &report);
        let output = command.output().expect("a child of the test");
        let shown = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            output.status.success(),
            "{test} in its child: {} (signal {:?})\n{shown}",
            output.status,
            output.status.signal(),
        );
        // Libtest prints this before a test's body; a name that matches no test would pass for nothing.
        assert!(
            shown.contains("running 1 test"),
            "no test is called {test}:\n{shown}"
        );
        match std::fs::read_to_string(&report) {
            Ok(text) => serde_json::from_str(&text).expect("a report of the driver"),
            // One that lacks something may not be called at all.
            Err(_) if self.is_absent || !self.lacks.is_empty() => Report::default(),
            Err(error) => panic!("{test} never called the driver ({error}):\n{shown}"),
        }
    }

    /// As [`FakeCuda::run`], with the machine's own driver instead if `ADJOIN_REAL_CUDA` is set: for tests that ask
    /// for no failure. There are no counts then.
    pub fn run_anywhere(&self, test: &str, body: impl FnOnce()) -> Option<Report> {
        if std::env::var_os(REAL).is_some() && std::env::var_os(INSIDE).is_none() {
            body();
            return None;
        }
        Some(self.run(test, body))
    }

    /// Makes a program that is about to be started use this driver. `directory` is an empty one that lives as long as
    /// the program; `report` is where its counts go.
    ///
    /// # Panics
    /// If the built library is not beside the test.
    pub fn apply(&self, command: &mut Command, directory: &Path, report: &Path) {
        for name in ["FAKE_CUDA_DEVICES", "FAKE_CUDA_MEMORY", "FAKE_CUDA_FAIL"] {
            command.env_remove(name);
        }
        command.envs(self.environment(directory, report));
    }

    /// The same as variables, for a program that somebody else starts.
    ///
    /// # Panics
    /// As [`FakeCuda::apply`].
    #[must_use]
    pub fn environment(&self, directory: &Path, report: &Path) -> Vec<(&'static str, OsString)> {
        let mut path = directory.as_os_str().to_owned();
        if let Some(before) = std::env::var_os("LD_LIBRARY_PATH") {
            path.push(":");
            path.push(before);
        }
        let own = [
            ("FAKE_CUDA_REPORT", report.into()),
            ("LD_LIBRARY_PATH", path),
        ];
        let asked = self.variables.iter();
        let asked = asked.map(|(name, value)| (*name, OsString::from(value)));
        if !self.is_absent {
            self.put_library(directory);
        }
        own.into_iter().chain(asked).collect()
    }

    /// The library under the names that it is looked for by.
    fn put_library(&self, directory: &Path) {
        let library = directory.join("libcuda.so");
        if self.lacks.is_empty() {
            std::os::unix::fs::symlink(library_path(), &library).expect("a name for the driver");
        } else {
            let mut bytes = std::fs::read(library_path()).expect("the built library");
            for function in &self.lacks {
                hide(&mut bytes, function);
            }
            std::fs::write(&library, bytes).expect("a copy of the driver");
        }
        // What loads the driver by its other name gets the same one.
        std::os::unix::fs::symlink(&library, directory.join("libcuda.so.1"))
            .expect("a second name for the driver");
    }
}

/// Gives a function of a library another name, so that nobody finds it: in its table of names each stands between zeros.
fn hide(library: &mut [u8], function: &str) {
    let name = format!("\0{function}\0").into_bytes();
    let mut hidden = 0;
    let mut at = 0;
    while let Some(found) = library[at..]
        .windows(name.len())
        .position(|part| part == name)
    {
        library[at + found + 1] = b'_';
        hidden += 1;
        at += found + name.len() - 1;
    }
    assert!(hidden > 0, "the fake driver has no function {function}");
}

/// Where cargo puts the library: beside test binaries.
fn library_path() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own binary");
    let directories = test.ancestors().skip(1).take(2);
    let candidates = directories.map(|directory| directory.join("libfake_cuda.so"));
    candidates
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("libfake_cuda.so is not beside {}", test.display()))
}

/// What the driver of this process has counted so far.
///
/// # Panics
/// If this process has another driver.
#[must_use]
pub fn counts() -> Report {
    type Counts = unsafe extern "C" fn(*mut c_char, usize) -> usize;
    // SAFETY: whoever asks for counts has loaded the driver, so this loads nothing.
    let library = unsafe { cudarc::driver::sys::culib() };
    // SAFETY: the type is that of the function in `entry`.
    let counts = unsafe { library.get::<Counts>(b"fake_cuda_counts") };
    let counts = counts.expect("this process has another CUDA driver");
    let mut text = vec![0_u8; 1 << 20];
    // SAFETY: there is as much room as is said.
    let byte_size = unsafe { counts(text.as_mut_ptr().cast(), text.len()) };
    text.truncate(byte_size.saturating_sub(1));
    serde_json::from_slice(&text).expect("counts of the driver")
}
