"""A real server in a process of its own, with a repository of the models that are checked in."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("ADJOIN", ROOT / "target/debug/adjoin"))
ONNXRUNTIME = os.environ.get(
    "ADJOIN_ONNXRUNTIME", str(ROOT / "target/tools/onnxruntime/libonnxruntime.so")
)
WATCHDOG_SECONDS = 120.0

MODELS = ["add", "scale_u8", "gather", "nonzero", "fixed", "slow", "half", "bf16", "text", "ints"]

# The callers of these tests come over a loopback address and show no token.
EVERYTHING = """
[access]
tcp_rights = ["infer", "inspect", "health", "control", "regions", "settings"]
[defaults]
intra_op_threads = 1
[models.add]
max_batch_size = 65536
"""


def wait_for(what: str, look: Callable[[], object]) -> None:
    """Looks until the answer is true; fails when it takes implausibly long."""
    began = time.monotonic()
    while not look():
        if time.monotonic() - began > WATCHDOG_SECONDS:
            pytest.fail(f"gave up waiting until {what}")
        time.sleep(0.01)


def model_file(name: str) -> Path:
    return ROOT / "tests/models" / f"{name}.onnx"


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Server:
    """Killed when stopped."""

    def __init__(self, *arguments: str, config: str = EVERYTHING) -> None:
        # Socket paths are short.
        self.dir = Path(tempfile.mkdtemp(prefix="adjoin-oip-"))
        self.repository = self.dir / "models"
        for name in MODELS:
            self.put(name)
        shutil.copytree(ROOT / "examples/repository/digits", self.repository / "digits")
        (self.dir / "adjoin.toml").write_text(config)
        grpc, http, metrics = free_ports(3)
        self.grpc, self.http = f"127.0.0.1:{grpc}", f"127.0.0.1:{http}"
        self.metrics = f"http://127.0.0.1:{metrics}/metrics"
        command = [
            str(BINARY),
            "serve",
            f"--model-repository={self.repository}",
            f"--socket-dir={self.dir / 'run'}",
            f"--config={self.dir / 'adjoin.toml'}",
            f"--onnxruntime={ONNXRUNTIME}",
            f"--grpc-addr={self.grpc}",
            f"--http-addr={self.http}",
            f"--metrics-addr=127.0.0.1:{metrics}",
            *arguments,
        ]
        with open(self.dir / "log", "wb") as log:
            self.process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        try:
            wait_for("the server is ready", self._is_up)
        except BaseException:
            self.stop()
            raise

    @property
    def control(self) -> str:
        """The control socket, as gRPC names it."""
        return f"unix:{self.dir / 'run/control.sock'}"

    @property
    def log(self) -> str:
        return (self.dir / "log").read_text()

    def put(self, name: str, version: int = 1, model: str | None = None) -> None:
        """Puts a version of a model into the repository."""
        to = self.repository / name / str(version)
        to.mkdir(parents=True)
        shutil.copy(model_file(model or name), to / "model.onnx")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory_bytes(self, field: str) -> int:
        """A line of its /proc/PID/status: VmRSS is what it holds, VmHWM the most it ever held."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith(field)]
        return int(line.split()[1]) * 1024

    def forget_peak(self) -> None:
        """Makes VmHWM begin anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def is_running(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.dir)

    def _is_up(self) -> bool:
        if not self.is_running():
            pytest.fail(f"the server ended:\n{self.log}")
        with grpcclient.InferenceServerClient(self.grpc) as client:
            try:
                return client.is_server_ready()
            except grpcclient.InferenceServerException:
                return False
