"""What is checked and measured, in this order, each with a limit of its own."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

# All limits together stay below ten minutes.
TOTAL_SECONDS = 600


class Outcome(str, Enum):
    """What became of a step."""

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Place:
    """What steps run, and where."""

    device_program: Path
    """`gpu_check`, an example of the crate adjoin-cuda."""
    tests: list[Path]
    """Test programs of adjoin-cuda."""
    environment: dict[str, str]
    library_path: str
    """LD_LIBRARY_PATH as it was: tests bring their own driver, or mean the machine's."""
    is_quick: bool
    """Few turns and small sizes: a walk through the steps, not a measurement."""
    adjoin: Path | str
    """The command, built with what models on a device need, or as text why it is not there."""
    plan: Path | None
    """A plan to serve; none where there is no TensorRT."""
    tensorrt: Path | None
    """Where TensorRT's library is."""
    onnx: Path | None
    """A model to serve by ONNX Runtime."""
    onnxruntime: Path | str
    """ONNX Runtime's library, with its CUDA provider beside it, or as text why it is not there."""


@dataclass
class Result:
    """A step that was taken."""

    name: str
    outcome: Outcome
    seconds: float = 0.0
    reason: str = ""
    figures: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A command, or why there is none."""

    name: str
    limit_seconds: int
    command: Callable[[Place], list[str] | str]
    """The command, or as text why it is skipped."""


def device(step: str) -> Callable[[Place], list[str]]:
    """A step of the device program."""

    def command(place: Place) -> list[str]:
        quick = ["--quick"] if place.is_quick else []
        return [str(place.device_program), step, *quick]

    return command


def sanitizer(place: Place) -> list[str] | str:
    tool = shutil.which("compute-sanitizer", path=place.environment.get("PATH"))
    if tool is None:
        return "compute-sanitizer is not on this machine; it comes with the CUDA toolkit"
    program = [str(place.device_program), "ordering", "--quick"]
    return [tool, "--tool", "memcheck", "--error-exitcode", "1", *program]


def driver_tests(place: Place) -> list[str] | str:
    if not place.tests:
        return "no test programs of adjoin-cuda; build them with `cargo test -p adjoin-cuda --no-run`"
    # One shell, so that the step has one limit.
    path = f"LD_LIBRARY_PATH={place.library_path}"
    return ["/usr/bin/env", path, "/bin/sh", "-ec", 'for test in "$@"; do "$test"; done', "tests", *map(str, place.tests)]


def served(place: Place, model: Path, serve: list[str], *more: str) -> list[str]:
    """The program that serves a model under load."""
    seconds = "0.3" if place.is_quick else "2"
    command = [sys.executable, "-m", "gpu_check.served", "--adjoin", str(place.adjoin), "--model", str(model)]
    return [*command, "--serve", " ".join(serve), "--seconds", seconds, *more]


PLAN = 'platform: "tensorrt_plan"'
ONNX = "max_batch_size: 32 instance_group { kind: KIND_GPU }"
PLAIN = f"{ONNX} optimization {{ cuda {{ graphs: false }} }}"
GRAPHS = f"{ONNX} optimization {{ cuda {{ graphs: true }} }}"
PIXELS = 'parameters { key: "input_transform:input" value { string_value: "mean=0.485,0.456,0.406 std=0.229,0.224,0.225" } }'
# Full 32-bit products, where the device would shorten them by itself.
EXACT = (
    f"{ONNX} optimization {{ execution_accelerators {{ gpu_execution_accelerator "
    '[ { name: "cuda" parameters { key: "use_tf32" value: "0" } } ] } }'
)


def engine_alone(place: Place) -> list[str] | str:
    if place.is_quick:
        return "not run: the engine does not run on the fake driver"
    missing = lacks(place, "onnxruntime", "numpy")
    if missing:
        return missing
    return [sys.executable, "-m", "gpu_check.engine", "--model", str(place.onnx), "--rows", "1", "8", "16", "32"]


def answers(place: Place) -> list[str] | str:
    missing = lacks(place, "onnxruntime", "numpy", "adjoin")
    if missing:
        return missing
    command = [sys.executable, "-m", "gpu_check.answers", "--adjoin", str(place.adjoin), "--model", str(place.onnx)]
    return [*command, "--config", EXACT, "--serve", f"--onnxruntime {place.onnxruntime}", "--requests", "10"]


def lacks(place: Place, *packages: str) -> str:
    """What a model on ONNX Runtime and these packages of Python need and is not there; nothing if all is."""
    for needed in (place.onnxruntime, place.adjoin):
        if isinstance(needed, str):
            return f"not run: {needed}"
    if place.onnx is None:
        return "not run: there is no model; `make models`, or name one with --model"
    for package in packages:
        if importlib.util.find_spec(package) is None:
            return f"not run: there is no Python package {package}"
    return ""


def onnxruntime_cuda(place: Place) -> list[str] | str:
    missing = lacks(place)
    if missing:
        return missing
    return alone(place, place.onnx)


def spinning(place: Place) -> list[str] | str:
    """The same where nobody sleeps: what is left of the difference to the engine is the server's."""
    missing = lacks(place)
    return missing or alone(place, place.onnx, "--spin-us", "20000", "--untouched")


def alone(place: Place, onnx: Path, *more: str) -> list[str]:
    """One client, so that nothing is computed beside its requests."""
    variants = ["--variant", "graphs off", PLAIN, "--variant", "graphs on", GRAPHS]
    rows = ["--rows", "1", "8", "32", "--clients", "1"]
    return served(place, onnx, ["--onnxruntime", str(place.onnxruntime)], *variants, *rows, *more)


def server(place: Place) -> list[str] | str:
    if isinstance(place.adjoin, str):
        return f"not run: {place.adjoin}"
    clients = ["--rows", "1", "4", "--pipeline", "1", "4", "--clients", "16"]
    if place.plan and place.tensorrt:
        return served(place, place.plan, ["--tensorrt", str(place.tensorrt)], "--variant", "plan", PLAN, *clients)
    if place.onnx and isinstance(place.onnxruntime, Path):
        serve = ["--onnxruntime", str(place.onnxruntime)]
        # As it comes, with nothing said of graphs.
        return served(place, place.onnx, serve, "--variant", "graphs on", ONNX, *clients)
    return "not run: neither a plan with TensorRT's library (--model, --tensorrt) nor a model with ONNX Runtime's CUDA provider"


def pixels(place: Place) -> list[str] | str:
    """Images as clients have them, beside what the model takes."""
    missing = lacks(place)
    if missing:
        return missing
    variants = ["--variant", "floats", GRAPHS, "--variant", "pixels", f"{GRAPHS} {PIXELS}"]
    serve = ["--onnxruntime", str(place.onnxruntime)]
    return served(place, place.onnx, serve, *variants, "--rows", "4", "--clients", "16")


def probe(place: Place) -> list[str]:
    return [str(place.device_program), "probe"]


STEPS = [
    Step("driver and devices", 20, probe),
    Step("cost of registering", 30, device("register")),
    Step("copies by size", 30, device("copies")),
    Step("gather of 32 sessions", 40, device("gather")),
    Step("order of work", 50, device("ordering")),
    Step("pixels to floats", 20, device("pixels")),
    Step("clients that die", 50, device("death")),
    Step("tests on this driver", 40, driver_tests),
    Step("engine alone", 50, engine_alone),
    Step("answers", 50, answers),
    Step("onnxruntime-cuda", 60, onnxruntime_cuda),
    Step("nobody sleeps", 50, spinning),
    Step("server", 40, server),
    Step("pixels", 40, pixels),
    Step("memory checker", 30, sanitizer),
]


# The last line of compute-sanitizer.
SANITIZED = re.compile(r"ERROR SUMMARY: (\d+) error")


def take(step: Step, place: Place) -> Result:
    """Takes a step, within its limit."""
    command = step.command(place)
    if isinstance(command, str):
        return Result(step.name, Outcome.SKIPPED, reason=command)
    begin = time.monotonic()
    try:
        ended = subprocess.run(
            command,
            env=place.environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=step.limit_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        reason = f"not done after {step.limit_seconds} s"
        return Result(step.name, Outcome.TIMED_OUT, time.monotonic() - begin, reason)
    except OSError as error:
        return Result(step.name, Outcome.FAILED, time.monotonic() - begin, f"{command[0]}: {error}")
    seconds = time.monotonic() - begin
    if ended.returncode != 0:
        last = (ended.stderr or ended.stdout).strip().splitlines()[-3:]
        reason = f"ended with {ended.returncode}: {' / '.join(last)}"
        return Result(step.name, Outcome.FAILED, seconds, reason)
    return Result(step.name, Outcome.PASSED, seconds, figures=figures(ended.stdout))


def figures(output: str) -> dict:
    """The JSON object that a program wrote as its last line, or what the memory checker found; nothing if there is neither."""
    errors = SANITIZED.search(output)
    if errors:
        return {"errors": int(errors[1])}
    lines = output.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        return {}
    try:
        return json.loads(lines[-1])
    except json.JSONDecodeError:
        return {}
