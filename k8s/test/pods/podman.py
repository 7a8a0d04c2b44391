"""podman as these tests use it: an installation that works in a plain virtual machine too, and errors with their text."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

TIMEOUT = 120
"""Longest time of one command, in seconds: a watchdog, nothing here is measured."""


class PodmanError(Exception):
    """A command failed; the text has the command and what it said."""


def _configuration(directory: Path) -> Path:
    """A containers.conf for hosts without systemd and without the right to raise limits: podman asks for more open files
    and processes than such a root may have, and its default runtime refuses mixed cgroup hierarchies."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    pid_max = int(Path("/proc/sys/kernel/pid_max").read_text())
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    processes = pid_max if processes == resource.RLIM_INFINITY else min(processes, pid_max)
    path = directory / "containers.conf"
    path.write_text(
        f"""[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""
    )
    return path


def configure(directory: Path) -> None:
    """Has all further commands of this process use a configuration that is written to the directory."""
    if "CONTAINERS_CONF" not in os.environ:
        os.environ["CONTAINERS_CONF"] = str(_configuration(directory))


def why_not() -> str | None:
    """Why pods cannot be run here, if they cannot."""
    if os.geteuid() != 0:
        return "pods are run by root: memory-backed volumes are mounted, users are switched"
    for command in ("podman", "runc"):
        if shutil.which(command) is None:
            return f"{command} is not installed; on Debian: apt install podman runc"
    try:
        podman("info")
    except PodmanError as error:
        return str(error)
    return None


def podman(*arguments: str, check: bool = True, timeout: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
    """Runs podman. Raises PodmanError when it fails, unless `check` is false."""
    command = ["podman", *arguments]
    # Where no file is called like an image: podman would take it for the image's source.
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd="/proc")
    if check and done.returncode != 0:
        raise PodmanError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def inspect(kind: str, name: str) -> dict[str, Any]:
    """What podman knows of a container, a pod or an image."""
    found = json.loads(podman(kind, "inspect", name).stdout)
    return found[0] if isinstance(found, list) else found
