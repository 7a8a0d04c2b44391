"""A real server in a process of its own, for every test module."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import adjoin
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
BINARY = Path(os.environ.get("ADJOIN", ROOT / "target/debug/adjoin"))
ONNXRUNTIME = os.environ.get(
    "ADJOIN_ONNXRUNTIME", str(ROOT / "target/tools/onnxruntime/libonnxruntime.so")
)
# Only what hangs takes so long, also while others keep the machine busy.
WATCHDOG_SECONDS = 240.0

T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T]) -> T:
    """Looks until the answer is true; fails when it takes implausibly long."""
    began = time.monotonic()
    while not (answer := look()):
        if time.monotonic() - began > WATCHDOG_SECONDS:
            pytest.fail(f"gave up waiting until {what}")
        time.sleep(0.005)
    return answer


def model_file(name: str) -> Path:
    if name == "digits":
        return ROOT / "demo/digits/model.onnx"
    return ROOT / "tests/models" / f"{name}.onnx"


class Server:
    """A server over models that are checked in, and those that `fill` puts into its repository.

    Killed when stopped.
    """

    def __init__(
        self,
        models: list[str],
        config: str = "",
        fill: Callable[[Path], None] = lambda repository: None,
    ) -> None:
        # Socket paths are short.
        self.dir = Path(tempfile.mkdtemp(prefix="adjoin-"))
        for name in models:
            to = self.dir / "models" / name / "1"
            to.mkdir(parents=True)
            shutil.copy(model_file(name), to / "model.onnx")
        fill(self.dir / "models")
        lines = "[defaults]\nintra_op_threads = 1\n" + config
        (self.dir / "adjoin.toml").write_text(lines)
        self.start()

    @property
    def socket_dir(self) -> str:
        return str(self.dir / "run")

    def start(self) -> None:
        command = [
            str(BINARY),
            "serve",
            f"--model-repository={self.dir / 'models'}",
            f"--socket-dir={self.socket_dir}",
            f"--config={self.dir / 'adjoin.toml'}",
            f"--onnxruntime={ONNXRUNTIME}",
        ]
        with open(self.dir / "log", "ab") as log:
            self.process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        try:
            wait_for("the server takes sessions", self._is_up)
        except BaseException:
            self.kill()
            raise

    def _is_up(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"the server ended:\n{(self.dir / 'log').read_text()}")
        try:
            adjoin.connect(self.socket_dir).close()
        except adjoin.ServerUnavailable:
            return False
        return True

    def client(self, **options: object) -> adjoin.Client:
        return adjoin.connect(self.socket_dir, **options)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Ends it in order."""
        self.process.terminate()
        self.process.wait(WATCHDOG_SECONDS)

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.dir)

    def sessions(self, name: str) -> int:
        """How many sessions clients of that name have."""
        command = [str(BINARY), "sessions", f"--socket-dir={self.socket_dir}", "--json"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        sessions = json.loads(listed)["sessions"]
        return sum(session["client_name"] == name for session in sessions)


ALL = ["add", "scale_u8", "gather", "nonzero", "fixed", "slow", "half", "bf16", "text", "ints"]


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    server = Server([*ALL, "digits"], "[models.add]\nmax_batch_size = 65536\n")
    yield server
    server.stop()


@pytest.fixture
def client(shared_server: Server) -> Iterator[adjoin.Client]:
    """A client of the server that all tests share."""
    with shared_server.client() as client:
        yield client


@pytest.fixture
def make_server() -> Iterator[Callable[..., Server]]:
    """Servers of one test, to be killed and restarted."""
    servers: list[Server] = []

    def make(models: list[str], config: str = "") -> Server:
        servers.append(Server(models, config))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images as the model takes them, and their labels."""
    images = np.load(ROOT / "demo/digits/test_images.npy")
    labels = np.load(ROOT / "demo/digits/test_labels.npy")
    return images.reshape(-1, 1, 8, 8).astype(np.float32), labels


def run_python(source: str, *arguments: str, expect: int = 0) -> str:
    """Runs a program in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments],
        capture_output=True,
        text=True,
        timeout=WATCHDOG_SECONDS,
    )
    assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
