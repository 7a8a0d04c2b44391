"""TorchServe: a Java web server in front of Python workers, msgpack over HTTP."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .. import install
from ..peer import (
    BATCH_ROWS,
    BATCH_WAIT_MS,
    BATCHED,
    MESSAGE_BYTES,
    READY_S,
    Peer,
    Server,
    Target,
    get,
)
from ..ports import HOST
from ..problems import Unavailable, one_line
from ..workloads import MODELS

JAVA_LEAST = 17
# The newest Python that its pinned torch is built for.
PYTHON_NEWEST = (3, 11)


class TorchServe(Peer):
    name = "torchserve"
    title = "TorchServe"
    package = "torchserve"
    settings = (
        "one worker for each model, handler without torch on the path of a request",
        f"MLP also with batchSize {BATCH_ROWS}, maxBatchDelay {BATCH_WAIT_MS} ms",
    )

    def prepare(self) -> None:
        require_java()
        if sys.version_info[:2] > PYTHON_NEWEST:
            wanted = ".".join(map(str, PYTHON_NEWEST))
            raise Unavailable(
                f"its torch is built for Python up to {wanted}; take one with PYTHON="
            )
        super().prepare()

    def start(self) -> list[Server]:
        store = self.run_folder / "store"
        shutil.rmtree(store, ignore_errors=True)
        store.mkdir()
        for served in MODELS:
            self.archive(served, store, batch=1, wait_ms=0)
        self.archive("mlp" + BATCHED, store, batch=BATCH_ROWS, wait_ms=BATCH_WAIT_MS)
        tools = self.python.parent
        server = self.spawn(
            self.name,
            [tools / "torchserve", "--start", "--foreground", "--model-store", store]
            + ["--models", "all", "--ts-config", self.write_configuration(), "--ncs"],
            {
                "PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin",
                "LOG_LOCATION": str(self.run_folder),
                "METRICS_LOCATION": str(self.run_folder),
            },
        )
        server.wait_ready(self.serves_all, READY_S)
        return [server]

    def serves_all(self) -> bool:
        """Whether each model has its worker: they come long after the server answers."""
        return all(self.works(served) for served in (*MODELS, "mlp" + BATCHED))

    def works(self, served: str) -> bool:
        said = get(self.port + 1, f"/models/{served}")
        workers = json.loads(said)[0]["workers"] if said else []
        return any(worker["status"] == "READY" for worker in workers)

    def write_configuration(self) -> Path:
        """Addresses, and no limits that the payloads meet."""
        lines = [
            f"inference_address=http://{HOST}:{self.port}",
            f"management_address=http://{HOST}:{self.port + 1}",
            f"metrics_address=http://{HOST}:{self.port + 2}",
            f"grpc_inference_address={HOST}",
            f"grpc_inference_port={self.port + 3}",
            f"grpc_management_address={HOST}",
            f"grpc_management_port={self.port + 4}",
            f"max_request_size={MESSAGE_BYTES}",
            f"max_response_size={MESSAGE_BYTES}",
            "default_response_timeout=120",
            "disable_token_authorization=true",
            "disable_system_metrics=true",
            # Where it puts the sockets to its workers.
            f"vmargs=-Djava.io.tmpdir={self.site.scratch}",
        ]
        path = self.run_folder / "config.properties"
        path.write_text("\n".join(lines) + "\n")
        return path

    def archive(self, served: str, store: Path, batch: int, wait_ms: int) -> None:
        settings = self.run_folder / f"{served}.yaml"
        settings.write_text(
            f"minWorkers: 1\nmaxWorkers: 1\nbatchSize: {batch}\nmaxBatchDelay: {wait_ms}\n"
            "responseTimeout: 120\n"
        )
        made = subprocess.run(
            [str(self.python.parent / "torch-model-archiver"), "--model-name", served]
            + ["--version", "1.0", "--handler", str(self.folder / "handler.py")]
            + ["--config-file", str(settings), "--export-path", str(store), "--force"],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise Unavailable(f"cannot archive {served}: {install.last_error(made.stderr)}")

    def targets(self, model: str, batching: bool) -> list[Target]:
        return [
            Target(
                self.name,
                "HTTP, msgpack",
                f"http-msgpack:http://{HOST}:{self.port}/predictions/{served}",
                self.name,
                setting=setting,
                python="http-msgpack",
            )
            for served, setting in self.served(model, batching)
        ]


def require_java() -> None:
    if shutil.which("java") is None:
        raise Unavailable(f"it needs Java {JAVA_LEAST} or later, and there is no `java`")
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < JAVA_LEAST:
        raise Unavailable(f"it needs Java {JAVA_LEAST} or later, and `java` is: {one_line(said)}")
