"""The command line of tools/gpu-check."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from . import bundle, fatbin, libraries, report
from .steps import STEPS, TOTAL_SECONDS, Outcome, Place, Result, Step, take

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benches" / "results"
DEFAULT_MODEL = ROOT / "target" / "models" / "resnet50" / "1" / "model.onnx"
FAKE_DRIVER = "libfake_cuda.so"
# What the loader looks for.
DRIVER = "libcuda.so"


NAMES = [step.name for step in STEPS]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="tools/gpu-check",
        description="Checks and measures adjoin on a machine with a GPU, in less than ten minutes. Each step has a limit "
        "of its own; what a machine lacks is skipped, with the reason. Results are JSON and a table.",
        epilog="Before: cargo build --release -p adjoin-cuda --example gpu_check; "
        "cargo test --release -p adjoin-cuda --no-run; cargo build --release -p adjoin --features tensorrt "
        "(without TensorRT's headers: --features cuda); make models. The engine alone and the comparison of answers need this "
        "Python's packages numpy and onnxruntime-gpu, which also bring the libraries, and adjoin (pip install ./client/python)",
    )
    made.add_argument("--dry-run", action="store_true", help="walk all steps on the fake driver, with few turns; not a measurement")
    made.add_argument("--programs", type=Path, metavar="DIR", help="where cargo put the programs (target/release; with --dry-run target/debug)")
    made.add_argument("--model", type=Path, metavar="FILE", help="model.plan or model.onnx to serve (target/models/resnet50/1/model.onnx)")
    made.add_argument("--tensorrt", type=Path, metavar="FILE", help="TensorRT's library, for a plan")
    made.add_argument("--bundle", type=Path, metavar="DIR", help="libraries in pieces, put beside each other before the steps (--pack makes them)")
    made.add_argument("--steps", nargs="+", metavar="NAME", help=f"these alone, behind the first: {', '.join(map(repr, NAMES))}")
    made.add_argument("--out", type=Path, metavar="FILE", help="where the JSON goes (benches/results/gpu.json; with --dry-run nowhere)")
    made.add_argument(
        "--pack", type=Path, metavar="DIR",
        help="make such a bundle of --libraries for --architecture instead of taking steps: pieces of at most 60 MiB",
    )
    made.add_argument("--libraries", type=Path, nargs="+", default=[], metavar="FILE", help="libraries for --pack")
    made.add_argument("--architecture", type=int, metavar="N", help="GPU code that --pack leaves in them, such as 90; all if absent")
    return made


def main() -> int:
    arguments = parser().parse_args()
    if arguments.pack:
        return pack(arguments)
    unknown = sorted(set(arguments.steps or []) - set(NAMES))
    if unknown:
        print(f"gpu-check: there is no step {unknown[0]!r}; there are {', '.join(map(repr, NAMES))}", file=sys.stderr)
        return 2
    is_fake = arguments.dry_run
    out = arguments.out or (None if is_fake else RESULTS / "gpu.json")
    if is_fake and out and RESULTS in out.resolve().parents:
        print("gpu-check: figures of the fake driver are no results; give another place", file=sys.stderr)
        return 2
    programs = arguments.programs or ROOT / "target" / ("debug" if is_fake else "release")
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as directory:
        try:
            place = prepare(arguments, programs, Path(directory))
        except (FileNotFoundError, bundle.BundleError) as error:
            print(f"gpu-check: {error}", file=sys.stderr)
            return 2
        results = run(place, [step for step in STEPS[1:] if not arguments.steps or step.name in arguments.steps])
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report.as_json(results, sys.argv, is_fake), indent=2) + "\n")
    print(report.table(results, is_fake))
    return 0 if report.is_good(results) else 1


def pack(arguments: argparse.Namespace) -> int:
    files = {}
    for library in arguments.libraries:
        has_gpu_code = arguments.architecture and any(fatbin.entries(library.read_bytes()))
        files[library.name] = (
            fatbin.prune(library, arguments.architecture) if has_gpu_code else library.read_bytes()
        )
    for packed in bundle.pack(files, arguments.pack):
        print(f"{packed.name}: {packed.byte_size} bytes in {len(packed.pieces)} pieces")
    return 0


def prepare(arguments: argparse.Namespace, programs: Path, directory: Path) -> Place:
    """Finds programs and libraries."""
    program = programs / "examples" / "gpu_check"
    if not program.is_file():
        raise FileNotFoundError(f"{program} is not there: cargo build -p adjoin-cuda --example gpu_check")
    found = []
    environment = dict(os.environ)
    # Steps that are programs of this package.
    environment["PYTHONPATH"] = ":".join(filter(None, [str(ROOT / "tools"), environment.get("PYTHONPATH", "")]))
    if arguments.dry_run:
        # Cargo puts it beside the programs if it was asked for it, else with what tests link.
        places = [programs / FAKE_DRIVER, programs / "deps" / FAKE_DRIVER]
        driver = next((place for place in places if place.is_file()), None)
        if driver is None:
            raise FileNotFoundError(f"{places[0]} is not there: cargo build -p adjoin-fake-cuda")
        (directory / "fake").mkdir()
        # A directory of its own, so that nothing else of the build is found through it.
        for name in (DRIVER, f"{DRIVER}.1"):
            (directory / "fake" / name).symlink_to(driver.resolve())
        found.append(directory / "fake")
    else:
        environment["ADJOIN_REAL_CUDA"] = "1"
    if arguments.bundle:
        bundle.unpack(arguments.bundle, directory / "libraries")
        found.append(directory / "libraries")
    found.extend(libraries.of_nvidia())
    served = adjoin(programs)
    if arguments.dry_run and isinstance(served, str):
        # A walk that leaves out what can be walked would say nothing.
        raise FileNotFoundError(served)
    paths = [str(path) for path in found]
    environment["LD_LIBRARY_PATH"] = ":".join(filter(None, [*paths, environment.get("LD_LIBRARY_PATH", "")]))
    return Place(
        device_program=program,
        tests=test_programs(programs),
        environment=environment,
        library_path=os.environ.get("LD_LIBRARY_PATH", ""),
        is_quick=arguments.dry_run,
        adjoin=served,
        **models(arguments, programs, directory),
    )


def adjoin(programs: Path) -> Path | str:
    """The command, if it is one that knows devices."""
    program = programs / "adjoin"
    if not program.is_file():
        return f"{program} is not there: cargo build -p adjoin --features tensorrt"
    # What it says of a device is there with the feature only.
    asked = subprocess.run([program, "doctor", "--json"], capture_output=True, text=True, check=False)
    if '"device"' not in asked.stdout:
        return f"{program} was built without devices: cargo build -p adjoin --features tensorrt"
    return program


def models(arguments: argparse.Namespace, programs: Path, directory: Path) -> dict:
    """What there is to serve, and the libraries for it."""
    if arguments.dry_run:
        fake = libraries.fake_tensorrt(programs)
        if fake is None:
            raise FileNotFoundError("there is no TensorRT for tests: make tensorrt-headers, then cargo build -p adjoin-fake-nvinfer")
        plan = directory / "model.plan"
        plan.write_text(libraries.fake_plan(fake))
        unable = "ONNX Runtime's CUDA provider does not run on the fake driver"
        return {"plan": plan, "tensorrt": fake.parent, "onnx": None, "onnxruntime": unable}
    model = arguments.model or DEFAULT_MODEL
    is_plan = model.suffix == ".plan"
    return {
        "plan": model if is_plan else None,
        "tensorrt": arguments.tensorrt,
        "onnx": model if not is_plan and model.is_file() else None,
        "onnxruntime": libraries.onnxruntime([directory / "libraries"]),
    }


def test_programs(programs: Path) -> list[Path]:
    """The newest test program of adjoin-cuda that cargo has built; other crates have one of the same name."""
    built = [path for path in programs.glob("deps/suite-*") if not path.suffix and os.access(path, os.X_OK)]
    built.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [path for path in built if has_test(path, KNOWN_TEST)][:1]


KNOWN_TEST = "machine::no_driver"


def has_test(program: Path, name: str) -> bool:
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=False, timeout=60)
    return f"{name}: test" in listed.stdout


def run(place: Place, steps: list[Step]) -> list[Result]:
    """Takes the first step, and these. Without a device, they are of no use."""
    assert sum(step.limit_seconds for step in STEPS) <= TOTAL_SECONDS, "the limits add up to less than ten minutes"
    results: list[Result] = []
    for step in [STEPS[0], *steps]:
        if results and results[0].outcome != Outcome.PASSED:
            results.append(Result(step.name, Outcome.SKIPPED, reason="there is no device"))
            continue
        results.append(take(step, place))
        print(f"gpu-check: {step.name}: {results[-1].outcome.value}", file=sys.stderr)
    return results
