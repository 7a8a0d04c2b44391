"""A folder in which a run finds everything that it needs, made of programs that only pretend."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

BENCHES = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(BENCHES))

from peers import install  # noqa: E402 (the path comes first)
from peers.layout import PACKAGE, Layout  # noqa: E402
from peers.workloads import MODELS  # noqa: E402

ADJOIN = """
    import os, signal, socket, sys, time
    address, port = sys.argv[sys.argv.index("--grpc-addr") + 1].split(":")
    mark = os.environ["ADJOIN_PEERS_RUN"]
    open(f"/dev/shm/adjoin_peers_{mark}_fake", "w").close()
    if os.fork() == 0:
        # A worker that does not end when its parent does.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.setsid()
        time.sleep(600)
        os._exit(0)
    listener = socket.create_server((address, int(port)))
    time.sleep(600)
"""

LOADGEN = """
    import json, os, sys, time
    arguments = sys.argv[1:]
    with open(os.environ["FAKE_CALLS"], "a+") as calls:
        calls.write(json.dumps(arguments) + "\\n")
        calls.seek(0)
        number = len(calls.readlines())
    if number == int(os.environ.get("FAKE_HANGS_AT", 0)):
        time.sleep(600)
    ends = [i for i, a in enumerate(arguments) if a == "--"] + [len(arguments)]
    own = [arguments[a:b] for a, b in zip(ends, ends[1:])] or [arguments]
    for options in own:
        print(json.dumps({
            "label": options[options.index("--label") + 1],
            "p50_us": 10.0, "p99_us": 20.0, "p999_us": 30.0,
            "requests": 100, "requests_per_s": 1000.0, "rate_per_s": 700.0,
            "mean_batch_rows": 4.0, "paired_p50_ratio": {"median": 1.5},
            "client_cpu_us_per_request": 5.0, "server_cpu_us_per_request": 6.0,
            "deadline_us": None,
        }))
"""

CLIENTS = """
    import json, sys
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"requests": 10, "requests_per_s": 20.0, "p50_us": 30.0, "p99_us": 40.0,
                          "client_cpu_us_per_request": 50.0}), flush=True)
"""

NOTHING = ""


@dataclass
class Bench:
    """The folder, and the command to be run in it."""

    folder: Path
    base_port: int

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / "home")

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def command(self, *options: str) -> list[str | Path]:
        folder = self.folder
        return [
            *(sys.executable, "-m", "peers", "run", "--home", folder / "home", "--out", self.out),
            *("--models", folder / "models", "--adjoin", folder / "adjoin"),
            *("--loadgen", folder / "loadgen", "--onnxruntime", folder / "library"),
            *("--base-port", str(self.base_port), *options),
        ]

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(BENCHES),
            "FAKE_CALLS": str(self.folder / "calls"),
            **more,
        }

    def run(self, *options: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*options),
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def begin(self, *options: str, **environment: str) -> subprocess.Popen:
        """Begins a run that is to be interrupted. Where the tests were started with interrupts
        ignored, as in the background of a shell, the command would leave it at that.
        """
        return subprocess.Popen(
            self.command(*options),
            env=self.environment(**environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    def journal(self) -> dict:
        return json.loads(self.layout.journal.read_text())


def program(path: Path, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(source)}")
    path.chmod(0o755)


def environment(layout: Layout, name: str, requirements: Path, source: str) -> None:
    """An environment that counts as installed; its Python runs this source."""
    program(layout.python(name), source)
    folder = layout.environment(name)
    (folder / "installed").write_text(install.fingerprint(folder, requirements))


@pytest.fixture
def bench(tmp_path: Path, unused_ports: int) -> Bench:
    made = Bench(tmp_path, unused_ports)
    program(tmp_path / "adjoin", ADJOIN)
    program(tmp_path / "loadgen", LOADGEN)
    (tmp_path / "library").touch()
    for model in MODELS:
        file = tmp_path / "models" / model / "1" / "model.onnx"
        file.parent.mkdir(parents=True)
        file.touch()
    environment(made.layout, "clients", PACKAGE / "clients" / "requirements.txt", CLIENTS)
    environment(made.layout, "plotting", PACKAGE / "plotting" / "requirements.txt", NOTHING)
    return made


@pytest.fixture
def unused_ports() -> int:
    """The first of a hundred ports, outside of the range that the kernel gives out, by process."""
    return 20000 + os.getpid() % 100 * 100
