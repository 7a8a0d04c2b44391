//! What is installed: symbols, soname, headers that every compiler takes, and the pkg-config file.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::stage::{pkg_config, prefix, succeed};

fn library() -> std::path::PathBuf {
    prefix().join("lib/libadjoin.so")
}

/// Names of the functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = std::fs::read_to_string(prefix().join("include/adjoin.h")).unwrap();
    let code = header
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code: Vec<&str> = code.collect();
    let words = code.iter().flat_map(|line| line.split([' ', '*']));
    let functions = words
        .filter_map(|word| word.split_once('('))
        .map(|(name, _)| name);
    functions
        .filter(|name| name.starts_with("adjoin_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn only_what_the_header_declares_is_exported() {
    let names = succeed(
        Command::new("nm")
            .args(["--dynamic", "--defined-only"])
            .arg(library()),
    );
    let exported: BTreeSet<String> = names
        .lines()
        .map(|line| line.rsplit(' ').next().unwrap().to_owned())
        .collect();
    assert!(exported.len() > 40, "{exported:?}");
    assert_eq!(exported, declared());
}

#[test]
fn soname_has_the_abi_version_and_points_to_the_release() {
    let header = std::fs::read_to_string(prefix().join("include/adjoin.h")).unwrap();
    let abi = header.split("#define ADJOIN_ABI_VERSION ").nth(1).unwrap();
    let abi = abi.lines().next().unwrap();
    let soname = format!("libadjoin.so.{abi}");
    let headers = succeed(Command::new("objdump").arg("-p").arg(library()));
    let line = headers
        .lines()
        .find(|line| line.contains("SONAME"))
        .unwrap();
    assert!(line.ends_with(&soname), "{line}");
    let release = format!("libadjoin.so.{}", env!("CARGO_PKG_VERSION"));
    let link = |name: &str| std::fs::read_link(prefix().join("lib").join(name)).unwrap();
    assert_eq!(link("libadjoin.so"), Path::new(&soname));
    assert_eq!(link(&soname), Path::new(&release));
}

#[test]
fn headers_are_clean_in_every_standard() {
    let strict = [
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Wundef",
        "-Wconversion",
        "-Wshadow",
        "-Werror",
        "-fsyntax-only",
    ];
    let include = format!("-I{}", prefix().join("include").display());
    for (compiler, language, standard, header) in [
        ("cc", "c", "-std=c11", "adjoin.h"),
        ("cc", "c", "-std=c17", "adjoin.h"),
        ("cc", "c", "-std=gnu11", "adjoin.h"),
        ("c++", "c++", "-std=c++17", "adjoin.h"),
        ("c++", "c++", "-std=c++17", "adjoin.hpp"),
        ("c++", "c++", "-std=c++20", "adjoin.hpp"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        // Twice, for the guards.
        let line = format!("#include <{header}>\n");
        std::fs::write(&source, line.repeat(2)).unwrap();
        let mut check = Command::new(compiler);
        check
            .args(strict)
            .args([standard, &include, "-x", language]);
        succeed(check.arg(source));
    }
}

#[test]
fn pkg_config_file_says_what_the_tool_reads() {
    assert_eq!(pkg_config("Version"), [env!("CARGO_PKG_VERSION")]);
    let files = prefix().join("lib/pkgconfig");
    let tool = |flag: &str| {
        let mut tool = Command::new("pkg-config");
        tool.env("PKG_CONFIG_PATH", &files).args([flag, "adjoin"]);
        tool.output()
    };
    // Where the tool is there, it has to agree with the reader of these tests.
    if let Ok(output) = tool("--libs") {
        let words = |bytes: Vec<u8>| -> Vec<String> {
            let text = String::from_utf8(bytes).unwrap();
            text.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(words(output.stdout), pkg_config("Libs"));
        assert_eq!(
            words(tool("--cflags").unwrap().stdout),
            pkg_config("Cflags")
        );
    }
}

#[test]
fn installation_respects_destdir_and_directories() {
    let directory = tempfile::tempdir().unwrap();
    let mut install = Command::new("sh");
    install
        .arg(crate::stage::crate_dir().join("install.sh"))
        .arg(crate::stage::built())
        .env("DESTDIR", directory.path())
        .env("PREFIX", "/opt/adjoin")
        .env("LIBDIR", "/opt/adjoin/lib64")
        .env_remove("INCLUDEDIR");
    succeed(&mut install);
    let under = |path: &str| directory.path().join("opt/adjoin").join(path);
    for file in [
        "include/adjoin.h",
        "include/adjoin.hpp",
        "lib64/libadjoin.a",
        "lib64/libadjoin.so",
    ] {
        assert!(under(file).is_file(), "{file}");
    }
    let file = std::fs::read_to_string(under("lib64/pkgconfig/adjoin.pc")).unwrap();
    assert!(file.contains("libdir=/opt/adjoin/lib64\n"), "{file}");
    assert!(!file.contains(directory.path().to_str().unwrap()), "{file}");
}
