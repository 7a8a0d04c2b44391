"""Calls adjoin-loadgen, the native clients, and reads what it writes."""

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .peer import Site, Target
from .problems import Unavailable, one_line
from .processes import MARK
from .workloads import IN_FLIGHT_MAX, Length, Tensor

# Not of a target but of the run, or said elsewhere in the results.
DROPPED = ("kind", "machine", "version", "command", "unix_time_s", "label", "target")
GRACE_S = 10


@dataclass(frozen=True)
class Caller:
    """A target, and how it is called."""

    target: Target
    clients: int
    server_pids: tuple[int, ...] = ()
    tensor: Tensor | None = None
    """Its own input, where that is not the common one."""
    pipeline: int = 1
    """Requests that each client has under way at once."""
    rate_per_s: float | None = None
    """Requests at random times, this many a second of all clients; else a closed loop."""

    def options(self) -> list[str]:
        options = ["--label", self.target.label, "--clients", str(self.clients)]
        if self.target.model:
            options += ["--model", self.target.model]
        for pid in self.server_pids:
            options += ["--server-pid", str(pid)]
        if self.pipeline > 1:
            options += ["--pipeline", str(self.pipeline)]
        if self.rate_per_s:
            options += ["--rate", f"{self.rate_per_s:.3f}"]
            options += ["--in-flight-max", str(IN_FLIGHT_MAX)]
        if self.tensor:
            options += ["--input", self.tensor.argument]
        return options


@dataclass(frozen=True)
class Loadgen:
    site: Site

    def compare(
        self,
        callers: Sequence[Caller],
        tensor: Tensor,
        length: Length,
        untouched: bool,
        verify: bool = True,
    ) -> dict[str, dict]:
        """All callers in turn, the first one being what the others are compared with; by label."""
        command: list[object] = [self.site.loadgen, "compare"]
        command += self.common(tensor, untouched, verify)
        command += ["--rounds", str(length.rounds), "--phase-ms", str(length.phase_ms)]
        for caller in callers:
            command += ["--", caller.target.address, *caller.options()]
        # Every phase, and the one to warm up, may be exceeded by a request that takes long.
        slowest_s = len(callers) * (length.rounds + 1) * (3 * length.phase_ms / 1000 + 5) + 120
        return {line["label"]: clean(line) for line in self.call(command, slowest_s)}

    def probe(self, caller: Caller, tensor: Tensor) -> None:
        """Raises Unavailable with the reason if this target does not answer, or answers wrongly."""
        command: list[object] = [self.site.loadgen, "run", "--target", caller.target.address]
        alone = replace(caller, tensor=None, pipeline=1, rate_per_s=None)
        command += [*self.common(tensor, untouched=False), *alone.options()]
        self.call([*command, "--seconds", "0.1", "--warmup", "0.1"], 120)

    def common(self, tensor: Tensor, untouched: bool, verify: bool = True) -> list[object]:
        return [
            *("--input", tensor.argument, "--threads", str(self.site.threads)),
            *(("--verify", self.site.model_file(tensor.model)) if verify else ()),
            *("--onnxruntime", self.site.onnxruntime, "--json"),
            *(("--untouched",) if untouched else ()),
        ]

    def call(self, command: Sequence[object], timeout_s: float) -> list[dict]:
        output = run_marked(command, self.site.mark, timeout_s)
        return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def run_marked(command: Sequence[object], mark: str, timeout_s: float) -> str:
    """Runs a command in a session of its own; ends it if this program is interrupted."""
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, MARK: mark},
        start_new_session=True,
    )
    try:
        output, said = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise Unavailable(
            f"{Path(str(command[0])).name} took more than {timeout_s:.0f} s"
        ) from None
    finally:
        end(process)
    if process.returncode != 0:
        raise Unavailable(one_line(said.strip().removeprefix("error: ") or "it said nothing"))
    return output


def end(process: subprocess.Popen) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def clean(line: dict) -> dict:
    """What is of the target itself. `line` keeps its label for the caller."""
    return {key: value for key, value in line.items() if key not in DROPPED and value is not None}
