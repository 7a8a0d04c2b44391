//! The client as `make install-c` leaves it, and programs compiled against that.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Which of the libraries a program is linked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// `libadjoin.so`, as the pkg-config file says.
    Shared,
    /// `libadjoin.a`, with the libraries that the pkg-config file says it needs.
    Static,
}

/// What finds wrong accesses and leaks. Undefined behaviour ends the program too.
const SANITIZERS: &[&str] = &[
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
];

const WARNINGS: &[&str] = &["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"];

/// The sources of this crate.
pub(crate) fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where cargo put the libraries.
pub(crate) fn built() -> PathBuf {
    let directory = adjoin_tests::binary("adjoin").parent().unwrap().to_owned();
    let library = directory.join("libadjoin.so");
    assert!(
        library.is_file(),
        "{} is missing: run `cargo build -p adjoin-c` first",
        library.display()
    );
    directory
}

/// A prefix with the client in it, as the installation script makes it.
pub(crate) fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c");
        let _ = std::fs::remove_dir_all(&prefix);
        let mut install = Command::new("sh");
        install.arg(crate_dir().join("install.sh")).arg(built());
        for name in ["LIBDIR", "INCLUDEDIR", "DESTDIR"] {
            install.env_remove(name);
        }
        succeed(install.env("PREFIX", &prefix));
        prefix
    })
}

/// A field of the installed pkg-config file, with its variables put in.
pub(crate) fn pkg_config(field: &str) -> Vec<String> {
    let path = prefix().join("lib/pkgconfig/adjoin.pc");
    let text = std::fs::read_to_string(path).unwrap();
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut found = None;
    for line in text.lines() {
        let put_in = |line: String, (name, value): &(String, String)| {
            line.replace(&format!("${{{name}}}"), value)
        };
        let line = variables.iter().fold(line.to_owned(), put_in);
        if let Some((name, value)) = line.split_once(": ") {
            if name == field {
                found = Some(value.split_whitespace().map(str::to_owned).collect());
            }
        } else if let Some((name, value)) = line.split_once('=') {
            variables.push((name.to_owned(), value.to_owned()));
        }
    }
    found.unwrap_or_else(|| panic!("the pkg-config file has no {field}"))
}

/// A source file to be compiled.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    is_sanitized: bool,
}

impl Source {
    /// A C or C++ file, by its path in the repository.
    pub(crate) fn new(path: &str) -> Self {
        Self {
            path: adjoin_tests::root().join(path),
            is_sanitized: true,
        }
    }

    /// Without sanitizers, for programs that look at their own memory.
    pub(crate) fn plain(mut self) -> Self {
        self.is_sanitized = false;
        self
    }

    /// Compiles it to a program in `directory`.
    pub(crate) fn compile(&self, link: Link, directory: &Path) -> PathBuf {
        let is_cpp = self.path.extension().unwrap() == "cpp";
        let (compiler, standard) = if is_cpp {
            ("c++", "-std=c++17")
        } else {
            ("cc", "-std=c11")
        };
        let program = directory.join("program");
        let mut compile = Command::new(compiler);
        compile.args([standard, "-D_GNU_SOURCE", "-g", "-O1", "-pthread"]);
        compile.args(WARNINGS);
        if self.is_sanitized {
            compile.args(SANITIZERS);
        }
        compile
            .args(pkg_config("Cflags"))
            .arg(&self.path)
            .arg("-o")
            .arg(&program);
        let library = prefix().join("lib");
        match link {
            Link::Shared => compile
                .args(pkg_config("Libs"))
                .arg(format!("-Wl,-rpath,{}", library.display())),
            Link::Static => compile
                .arg(library.join("libadjoin.a"))
                .args(pkg_config("Libs.private")),
        };
        succeed(&mut compile);
        program
    }
}

/// Runs a command to its good end; what it wrote to standard output.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{errors}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}
