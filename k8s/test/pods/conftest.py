"""What all tests with running pods share: rendered overlays, a node, and a look at processes from outside."""

from __future__ import annotations

import copy
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import podman
import pytest
import yaml
from kubelet import Container, wait_until
from volumes import Node

ROOT = Path(__file__).resolve().parents[3]
KUBECTL = str(Path(os.environ["ADJOIN_K8S_TOOLS"]) / "bin" / "kubectl") if "ADJOIN_K8S_TOOLS" in os.environ else "kubectl"
REQUIRED = "ADJOIN_PODS_REQUIRED"
"""Where this variable is set, a machine that cannot run pods is a failure and no reason to skip."""

Documents = list[dict[str, Any]]


@pytest.fixture(scope="session", autouse=True)
def _podman(tmp_path_factory: pytest.TempPathFactory) -> None:
    podman.configure(tmp_path_factory.mktemp("podman"))
    reason = podman.why_not()
    if reason is not None:
        pytest.fail(reason) if os.environ.get(REQUIRED) else pytest.skip(reason)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with nothing on it."""
    return Node(tmp_path / "node")


@pytest.fixture(scope="session")
def render() -> Callable[[str], Documents]:
    """Renders an overlay; each call gives a copy that may be changed."""
    rendered: dict[str, Documents] = {}

    def documents(overlay: str) -> Documents:
        if overlay not in rendered:
            command = [KUBECTL, "kustomize", str(ROOT / "k8s" / "overlays" / overlay)]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            rendered[overlay] = list(yaml.safe_load_all(text))
        return copy.deepcopy(rendered[overlay])

    return documents


def find(documents: Documents, kind: str, container: str) -> dict[str, Any]:
    """A container in what makes pods, to be changed."""
    (owner,) = [document for document in documents if document["kind"] == kind]
    spec = owner["spec"]["template"]["spec"]
    return next(c for c in spec.get("initContainers", []) + spec["containers"] if c["name"] == container)


def status(container: Container, key: str) -> str:
    """A line of `/proc/PID/status` of a container's first process."""
    text = Path(f"/proc/{container.pid}/status").read_text()
    return next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith(f"{key}:"))


def descriptors(container: Container) -> int:
    """How many descriptors a container's first process has open."""
    return len(os.listdir(f"/proc/{container.pid}/fd"))


def memory_bytes(container: Container) -> int:
    """What is charged to a container's control group and cannot be taken back: private memory and memory files."""
    for line in Path(f"/proc/{container.pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            directory, keys = Path("/sys/fs/cgroup/memory" + path), ("rss", "shmem")
            break
        if number == "0":
            directory, keys = Path("/sys/fs/cgroup" + path), ("anon", "shmem")
    fields = dict(line.split() for line in (directory / "memory.stat").read_text().splitlines())
    return sum(int(fields[key]) for key in keys)


COUNTS = re.compile(r"(\w+)=(\d+)")


def tallies(client: Container, what: str = "second") -> list[dict[str, int]]:
    """What the client `digits` has reported so far, oldest first."""
    lines = [line for line in client.log().splitlines() if line.startswith(f"{what}:")]
    return [{key: int(value) for key, value in COUNTS.findall(line)} for line in lines]


def wait_for_answers(client: Container, servers: int = 1, more: int = 1) -> None:
    """Waits for so many more reports with answers, of a client that has met so many servers."""
    seen = len(tallies(client))

    def is_served() -> bool:
        good = [t for t in tallies(client)[seen:] if t["answered"] > 0 and t["servers"] == servers]
        return len(good) >= more

    try:
        wait_until(f"{client.name} gets answers of server {servers}", is_served)
    except TimeoutError as error:
        raise TimeoutError(f"{error}; its state is {client.state}, and its log\n{client.log()}") from None


def metric(text: str, name: str, **labels: str) -> float:
    """The sum of a metric over the series that have these labels."""
    total, is_there = 0.0, False
    for line in text.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name and all(f'{key}="{value}"' in (found[2] or "") for key, value in labels.items()):
            total, is_there = total + float(found[3]), True
    assert is_there, f"{name} is not among the metrics"
    return total
