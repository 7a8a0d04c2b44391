"""Runs pods of rendered manifests with podman, as the kubelet would.

podman's own `kube play` lacks what matters here: native sidecars, start-up probes that the next container waits for, gRPC
probes, memory-backed volumes with a size and a group, image volumes, hooks, and the order of the end. What is not here
raises an error instead of being left out: scheduling, admission and eviction belong to others anyway.
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import probes
from podman import inspect, podman
from volumes import Node, Volumes, quantity

LOOK_INTERVAL = 0.05
FROM_POD = ("runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile")


class StartError(Exception):
    """A pod did not start; the text has the container, why, and its log."""


def wait_until(what: str, condition: Callable[[], Any], limit: float = 30) -> Any:
    """Waits until a condition gives something true, and gives it back."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {limit} s")
        time.sleep(LOOK_INTERVAL)


class Container:
    """A container of a pod."""

    def __init__(self, pod: Pod, spec: dict[str, Any]):
        self.pod = pod
        self.spec = spec
        self.name = f"{pod.name}-{spec['name']}"

    def create(self) -> None:
        """Makes it, without starting it."""
        podman("create", "--pod", self.pod.name, "--name", self.name, "--pull", "never", *self._security(),
               *self._resources(), *self._environment(), *self._mounts(), *self._command())

    def _security(self) -> list[str]:
        of_pod = self.pod.spec.get("securityContext") or {}
        context = {key: value for key, value in of_pod.items() if key in FROM_POD}
        context |= self.spec.get("securityContext") or {}
        user = context.get("runAsUser")
        if context.get("runAsNonRoot") and not self._is_other_user(user):
            raise StartError(f"{self.name}: runAsNonRoot, and it would run as root")
        arguments = []
        if user is not None:
            arguments += ["--user", f"{user}:{context.get('runAsGroup', 0)}"]
        groups = [*of_pod.get("supplementalGroups", []), *([of_pod["fsGroup"]] if "fsGroup" in of_pod else [])]
        for group in dict.fromkeys(groups):
            arguments += ["--group-add", str(group)]
        if context.get("readOnlyRootFilesystem"):
            arguments += ["--read-only", "--read-only-tmpfs=false"]
        if context.get("allowPrivilegeEscalation") is False:
            arguments += ["--security-opt", "no-new-privileges"]
        capabilities = context.get("capabilities") or {}
        for name in capabilities.get("drop", []):
            arguments += ["--cap-drop", name]
        for name in capabilities.get("add", []):
            arguments += ["--cap-add", name]
        # The runtime's seccomp profile holds unless one asks for none, as with RuntimeDefault.
        return arguments

    def _is_other_user(self, user: int | None) -> bool:
        if user is not None:
            return user != 0
        of_image = inspect("image", self.spec["image"])["Config"].get("User", "").split(":")[0]
        # A name cannot be checked without the image's files; the kubelet refuses it as well.
        return of_image.isdigit() and int(of_image) != 0

    def _resources(self) -> list[str]:
        limits = (self.spec.get("resources") or {}).get("limits") or {}
        arguments = []
        if "memory" in limits:
            size = str(int(quantity(limits["memory"])))
            arguments += ["--memory", size, "--memory-swap", size]
        if "cpu" in limits:
            arguments += ["--cpus", str(quantity(limits["cpu"]))]
        return arguments

    def _environment(self) -> list[str]:
        arguments = []
        for variable in self.spec.get("env") or []:
            if "value" not in variable:
                raise NotImplementedError(f"a variable like this: {variable}")
            arguments += ["--env", f"{variable['name']}={variable['value']}"]
        return arguments

    def _mounts(self) -> list[str]:
        mounts = self.spec.get("volumeMounts") or []
        return [word for mount in mounts for word in ("--mount", self.pod.volumes.mount(mount))]

    def _command(self) -> list[str]:
        command = self.spec.get("command")
        entrypoint = ["--entrypoint", json.dumps(command)] if command else []
        return [*entrypoint, self.spec["image"], *map(str, self.spec.get("args") or [])]

    def start(self) -> None:
        """Starts it, or starts it again in the same pod, as after its end."""
        podman("start", self.name)

    def run(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs a command in it."""
        return podman("exec", self.name, *command, check=False, timeout=timeout)

    @property
    def state(self) -> dict[str, Any]:
        return inspect("container", self.name)["State"]

    @property
    def is_running(self) -> bool:
        return self.state["Running"]

    @property
    def exit_code(self) -> int:
        return self.state["ExitCode"]

    @property
    def pid(self) -> int:
        """Its first process, as the host counts."""
        return self.state["Pid"]

    def log(self) -> str:
        """Both of its streams."""
        done = podman("logs", self.name, check=False)
        return done.stdout + done.stderr

    def kill(self, which: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to its first process."""
        podman("kill", "--signal", which.name, self.name)

    def wait(self, limit: float = 60) -> int:
        """Waits for its end; its exit status."""
        return int(podman("wait", self.name, timeout=limit).stdout)

    def port(self, port: int | str) -> int:
        """A port by its name or number."""
        if isinstance(port, int):
            return port
        return next(entry["containerPort"] for entry in self.spec["ports"] if entry["name"] == port)

    @property
    def is_sidecar(self) -> bool:
        return self.spec.get("restartPolicy") == "Always"

    def wait_for_probe(self, kind: str) -> None:
        """Probes until it succeeds. Raises StartError when it has failed too often, or the container has ended."""
        probe = self.spec.get(kind)
        if not probe:
            return
        time.sleep(probe.get("initialDelaySeconds", 0))
        for _ in range(probe.get("failureThreshold", 3)):
            if probes.succeeds(self, probe):
                return
            if not self.is_running:
                raise StartError(f"{self.name} ended with {self.exit_code} before its {kind}\n{self.log()}")
            time.sleep(min(probe.get("periodSeconds", 10), 1))
        raise StartError(f"{self.name}: {kind} failed\n{self.log()}")

    def stop(self, grace: float) -> None:
        """Its hook, SIGTERM, and SIGKILL when the grace period has passed."""
        if not self.is_running:
            return
        end = time.monotonic() + grace
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        match hook:
            case None:
                pass
            case {"exec": {"command": command}}:
                done = self.run(*command, timeout=grace)
                self.pod.hooks.append((self.spec["name"], done.returncode, done.stdout + done.stderr))
            case _:
                raise NotImplementedError(f"a hook of this kind: {hook}")
        podman("stop", "--time", str(max(1, int(end - time.monotonic()))), self.name, timeout=grace + 30)


class Pod:
    """One pod of rendered manifests. Use it with `with`: everything is removed at the end."""

    def __init__(self, documents: list[dict[str, Any]], owner: str, node: Node, name: str | None = None):
        """`owner` is the pod, or what has its template, such as `Deployment/app`."""
        kind, owner_name = owner.split("/")
        found = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == owner_name]
        if len(found) != 1:
            raise ValueError(f"{len(found)} objects are {owner}")
        self.spec: dict[str, Any] = found[0]["spec"] if kind == "Pod" else found[0]["spec"]["template"]["spec"]
        self.name = name or owner_name
        self.node = node
        self.config_maps = {d["metadata"]["name"]: d["data"] for d in documents if d["kind"] == "ConfigMap"}
        self.volumes = Volumes(Path(tempfile.mkdtemp(prefix="pod-")))
        self.address = ""
        self.hooks: list[tuple[str, int, str]] = []
        """Containers whose preStop hook ran, with its exit status and output."""
        self.init = [Container(self, spec) for spec in self.spec.get("initContainers") or []]
        self.main = [Container(self, spec) for spec in self.spec["containers"]]

    def __getitem__(self, name: str) -> Container:
        return next(c for c in self.init + self.main if c.spec["name"] == name)

    def __enter__(self) -> Pod:
        return self

    def __exit__(self, *_: object) -> None:
        podman("pod", "rm", "--force", "--time", "0", self.name, check=False)
        self.volumes.remove()

    def make(self) -> None:
        """Makes volumes and the pod's sandbox."""
        self.volumes.make(self.spec, self.config_maps, self.node)
        podman("pod", "create", "--name", self.name, "--network", "podman", "--share", "net,ipc,uts")
        podman("pod", "start", self.name)
        infra = inspect("pod", self.name)["InfraContainerID"]
        self.address = inspect("container", infra)["NetworkSettings"]["Networks"]["podman"]["IPAddress"]

    def start(self) -> None:
        """Starts it as far as the kubelet does before it is ready. Raises StartError with what a container said."""
        self.make()
        for container in self.init:
            container.create()
            container.start()
            if container.is_sidecar:
                container.wait_for_probe("startupProbe")
            elif (status := container.wait()) != 0:
                raise StartError(f"{container.name} ended with {status}\n{container.log()}")
        for container in self.main:
            container.create()
            container.start()
        for container in self.main:
            container.wait_for_probe("startupProbe")

    def wait_until_ready(self) -> None:
        """Waits for the readiness probes of all its containers."""
        for container in self.init + self.main:
            if container.is_sidecar or container in self.main:
                container.wait_for_probe("readinessProbe")

    def wait_until_complete(self, limit: float = 120) -> int:
        """As a Job's pod: waits for its main containers, then ends the sidecars. The worst exit status."""
        status = max(container.wait(limit) for container in self.main)
        self.stop()
        return status

    def stop(self) -> None:
        """Ends it as the kubelet does: main containers first, then sidecars in reverse order."""
        end = time.monotonic() + self.spec.get("terminationGracePeriodSeconds", 30)
        sidecars = [container for container in self.init if container.is_sidecar]
        for container in [*self.main, *reversed(sidecars)]:
            container.stop(max(1.0, end - time.monotonic()))


def exists(kind: str, name: str) -> bool:
    """Whether podman has a pod, a container or an image of that name."""
    return podman(kind, "exists", name, check=False).returncode == 0
