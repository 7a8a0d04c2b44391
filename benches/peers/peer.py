"""What the orchestration knows of a peer. Each peer is a folder with one class of this kind."""

import http.client
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from . import install, ports
from .layout import PACKAGE, SERVING, Layout
from .processes import Server, scratch
from .workloads import Tensor

READY_S = 120.0
# Requests of one batch at most, and how long the first of them may wait: what dynamic batching is
# given wherever a server has it.
BATCH_ROWS = 16
BATCH_WAIT_MS = 1
# What a served name ends with where the same model is served a second time, with batching: the MLP.
BATCHED = "__batch"
# The largest message: 18.4 MiB of tensors, with room for what is around them.
MESSAGE_BYTES = 64 << 20


@dataclass(frozen=True)
class Site:
    """Where and with what a run takes place."""

    layout: Layout
    models: Path
    adjoin: Path
    loadgen: Path
    onnxruntime: Path
    threads: int
    base_port: int
    mark: str

    @property
    def scratch(self) -> Path:
        """For sockets, whose paths have to be short, and whatever a server puts into TMPDIR."""
        return scratch(self.mark)

    def model_file(self, model: str) -> Path:
        return self.models / model / "1" / "model.onnx"


@dataclass(frozen=True)
class Target:
    """One way to one model of one server, under one setting: what a measurement is of."""

    peer: str
    way: str
    address: str
    """As adjoin-loadgen takes it."""
    server: str
    """Name of the process that serves it."""
    model: str | None = None
    """Name that it is served under, where the protocol has one."""
    setting: str = ""
    """What sets it apart from other targets of the same peer and way."""
    python: str | None = None
    """The kind of Python client that can reach it."""
    second: bool = False
    """Whether it is a further protocol, left out where the model takes all of the time."""

    @property
    def label(self) -> str:
        return " / ".join(part for part in (self.peer, self.way, self.setting) if part)


@dataclass
class Peer(ABC):
    """A server to measure, set up as its documentation advises."""

    site: Site
    index: int

    name: ClassVar[str]
    title: ClassVar[str]
    package: ClassVar[str]
    """The package whose version is the peer's."""
    settings: ClassVar[tuple[str, ...]]
    """How it is set up, in words, for the results."""
    notes: list[str] = field(default_factory=list, init=False)
    """What turned out on this machine and belongs into the results."""

    @property
    def folder(self) -> Path:
        return PACKAGE / self.name

    @property
    def port(self) -> int:
        """The first of its block of ports."""
        return ports.block(self.site.base_port, self.index)

    def ports(self) -> range:
        """The ports that its servers may listen on."""
        return range(self.port, self.port + ports.PORTS_EACH)

    @property
    def python(self) -> Path:
        return self.site.layout.python(self.name)

    @property
    def run_folder(self) -> Path:
        folder = self.site.layout.run / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def version(self) -> str:
        return install.pins(self.folder / "requirements.txt")[self.package]

    def prepare(self) -> None:
        """Installs and builds what it needs; Unavailable if that cannot be done here."""
        install.ensure(self.site.layout, self.name, self.folder / "requirements.txt")

    @abstractmethod
    def start(self) -> list[Server]:
        """Starts its servers; Unavailable if they do not serve."""

    @abstractmethod
    def targets(self, model: str, batching: bool) -> list[Target]:
        """The ways to a model; with `batching` also under the settings that batch."""

    @contextmanager
    def on_demand(self, tensor: Tensor) -> Iterator[tuple[Server, Target] | None]:
        """A server for such requests alone, of a peer that is not started with the others."""
        yield None

    @staticmethod
    def served(model: str, batching: bool) -> list[tuple[str, str]]:
        """Names that a model is served under, each with its setting in words."""
        alone = (model, "")
        return [alone, (model + BATCHED, f"batches up to {BATCH_ROWS}")] if batching else [alone]

    def spawn(
        self,
        name: str,
        command: Sequence[object],
        environment: Mapping[str, str] | None = None,
    ) -> Server:
        """Starts one of its processes in its folder of the run."""
        return Server(
            name,
            command,
            self.site.mark,
            self.site.layout.logs / f"{name}.log",
            environment={**self.engine_environment(), **(environment or {})},
            folder=self.run_folder,
        )

    def engine_environment(self) -> dict[str, str]:
        """What serving/engine.py reads, and the path to it."""
        return {
            "PEERS_MODELS": str(self.site.models),
            "PEERS_THREADS": str(self.site.threads),
            "PYTHONPATH": str(SERVING),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self.site.scratch),
        }


def answers(port: int, path: str) -> bool:
    """Whether a GET of this path is answered with success."""
    return get(port, path) is not None


def get(port: int, path: str) -> bytes | None:
    """What a GET of this path is answered with, or None without success."""
    connection = http.client.HTTPConnection(ports.HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        return body if 200 <= response.status < 300 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
