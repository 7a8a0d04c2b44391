"""A server of one model on the device, for the steps that call it."""

import contextlib
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MODEL = "model"
START_SECONDS = 90


class ServedError(Exception):
    """The server did not do what it should."""


@dataclass(frozen=True)
class Server:
    """A server that takes requests for `MODEL`."""

    sockets: Path
    metrics: str
    """Host and port of its metrics."""


@contextlib.contextmanager
def serving(adjoin: Path, model: Path, config: str, serve: str, directory: Path) -> Iterator[Server]:
    """Serves `model` under `config`; the server has to end well, too."""
    repository = lay_out(model, config, directory)
    server = Server(directory / "run", f"127.0.0.1:{free_port()}")
    command = [adjoin, "serve", "--model-repository", repository, "--socket-dir", server.sockets]
    command += ["--metrics-addr", server.metrics, *shlex.split(serve)]
    log = directory / "server.log"
    with open(log, "wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_until_ready(adjoin, server.sockets, process, log)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
    if process.returncode != 0:
        raise ServedError(f"the server ended with {process.returncode}: {tail(log)}")


def lay_out(model: Path, config: str, directory: Path) -> Path:
    """A repository with that model as its only one."""
    version = directory / "models" / MODEL / "1"
    version.mkdir(parents=True)
    (version / f"model{model.suffix}").symlink_to(model.resolve())
    (version.parent / "config.pbtxt").write_text(config)
    return directory / "models"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_until_ready(adjoin: Path, sockets: Path, server: subprocess.Popen, log: Path) -> None:
    """Waits until the model takes requests."""
    command = [adjoin, "health", "--socket-dir", sockets, "--model", MODEL]
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            raise ServedError(f"the server ended at its start with {server.returncode}: {tail(log)}")
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            return
        if asked.stdout.strip() in ("no such model", "not serving"):
            raise ServedError(f"the model is not served: {tail(log)}")
        time.sleep(0.1)
    raise ServedError(f"the server was not ready after {START_SECONDS} s: {tail(log)}")


def tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:])
