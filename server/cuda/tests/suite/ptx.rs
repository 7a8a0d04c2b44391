//! The PTX that is checked in is what its script makes of the source.

use std::path::Path;
use std::process::Command;

/// `make check-kernels` runs it, and gives the place for the compiler.
#[test]
#[ignore = "needs the CUDA compiler, 200 MB from PyPI: make check-kernels"]
fn is_what_its_script_makes() {
    let tools = std::env::var_os("ADJOIN_KERNEL_TOOLS").unwrap_or_else(|| "target/kernels".into());
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let out = tempfile::tempdir().unwrap();
    let built = Command::new(kernels.join("build.sh"))
        .args([out.path().as_os_str(), &tools])
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let made = std::fs::read_to_string(out.path().join("adjoin.ptx")).unwrap();
    let kept = std::fs::read_to_string(kernels.join("adjoin.ptx")).unwrap();
    assert!(
        made == kept,
        "run server/cuda/kernels/build.sh server/cuda/kernels"
    );
}

/// What can be said of the PTX without the compiler: version, architecture, and the kernels that the source has.
#[test]
fn has_what_its_source_has() {
    let (source, ptx) = (
        include_str!("../../kernels/adjoin.cu"),
        include_str!("../../kernels/adjoin.ptx"),
    );
    assert!(ptx.contains("\n.version 8.0\n"), "for driver 525 and later");
    assert!(ptx.contains("\n.target sm_75\n"));
    let kernels = source
        .lines()
        .filter_map(|line| line.strip_prefix("extern \"C\" __global__ void "));
    let names: Vec<&str> = kernels.filter_map(|line| line.split('(').next()).collect();
    assert_eq!(names.len(), 4);
    for name in names {
        assert!(ptx.contains(&format!(".visible .entry {name}(")), "{name}");
    }
}

/// A fused multiply-add, or a division that is only nearly one, would give other bits than a processor does.
#[test]
fn normalises_by_steps_that_are_rounded_each() {
    let ptx = include_str!("../../kernels/adjoin.ptx");
    let kernels = ptx.split(".visible .entry adjoin_normalize_").skip(1);
    let mut count = 0;
    for kernel in kernels {
        for instruction in ["mul.rn.f32", "sub.rn.f32", "div.rn.f32"] {
            assert_eq!(kernel.matches(instruction).count(), 4, "{instruction}");
        }
        for other in ["fma.", "mad.rn", ".ftz", ".approx", "div.full"] {
            assert!(!kernel.contains(other), "{other}");
        }
        count += 1;
    }
    assert_eq!(count, 3);
}
