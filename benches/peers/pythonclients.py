"""Starts clients/drive.py for a target, and has it measure in phases."""

import json
import os
import subprocess
from contextlib import suppress

from .layout import PACKAGE
from .loadgen import end
from .peer import Site, Target
from .problems import Unavailable, one_line
from .processes import MARK, segment_prefix
from .workloads import Tensor

ENVIRONMENT = "clients"


class PythonClients:
    """Python processes that call one target while `phase` lasts."""

    def __init__(self, site: Site, target: Target, tensor: Tensor, clients: int) -> None:
        self.target = target
        address = target.address.partition(":")[2]
        self._process = subprocess.Popen(
            [site.layout.python(ENVIRONMENT), PACKAGE / "clients" / "drive.py"]
            + ["--way", str(target.python), "--address", address]
            + ["--model", target.model or tensor.model, "--dtype", tensor.dtype]
            + ["--shape", ",".join(map(str, tensor.shape)), "--clients", str(clients)]
            + ["--segment", segment_prefix(site.mark)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                MARK: site.mark,
                "PEERS_MODELS": str(site.models),
                "PEERS_THREADS": str(site.threads),
            },
            start_new_session=True,
        )

    def wait_ready(self) -> None:
        self._read()

    def phase(self, seconds: float) -> dict:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{seconds}\n")
            self._process.stdin.flush()
        except OSError:
            raise Unavailable(self._last_words()) from None
        return self._read()

    def _read(self) -> dict:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Unavailable(self._last_words())
        said = json.loads(line)
        if "error" in said:
            raise Unavailable(said["error"])
        return said

    def _last_words(self) -> str:
        end(self._process)
        assert self._process.stderr is not None
        lines = self._process.stderr.read().splitlines() or ["Python clients ended"]
        return one_line(lines[-1])

    def close(self) -> None:
        """Ends the clients: they see the end of their input."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            end(self._process)
