"""MLServer: the Open Inference Protocol over gRPC in front of Python."""

import json

from ..peer import (
    BATCH_ROWS,
    BATCH_WAIT_MS,
    BATCHED,
    MESSAGE_BYTES,
    READY_S,
    Peer,
    Server,
    Target,
    answers,
)
from ..ports import HOST
from ..workloads import MODELS


class MlServer(Peer):
    name = "mlserver"
    title = "MLServer"
    package = "mlserver"
    settings = (
        "parallel_workers 0: the models run in the server's process, without a hand-over",
        f"MLP also with max_batch_size {BATCH_ROWS}, max_batch_time {BATCH_WAIT_MS} ms",
    )

    def start(self) -> list[Server]:
        self.write_settings()
        server = self.spawn(
            self.name,
            [self.python, "-m", "mlserver.cli.main", "start", self.run_folder],
            {"PYTHONPATH": f"{self.engine_environment()['PYTHONPATH']}:{self.folder}"},
        )
        server.wait_ready(lambda: answers(self.port + 1, "/v2/health/ready"), READY_S)
        return [server]

    def write_settings(self) -> None:
        server = {
            "debug": False,
            "host": HOST,
            "grpc_port": self.port,
            "http_port": self.port + 1,
            "metrics_port": self.port + 2,
            "parallel_workers": 0,
            "grpc_max_message_length": MESSAGE_BYTES,
        }
        (self.run_folder / "settings.json").write_text(json.dumps(server))
        batching = {"max_batch_size": BATCH_ROWS, "max_batch_time": BATCH_WAIT_MS / 1000}
        for served in (*MODELS, "mlp" + BATCHED):
            folder = self.run_folder / served
            folder.mkdir(exist_ok=True)
            model: dict = {"name": served, "implementation": "runtime.OnnxRuntime"}
            model |= batching if served.endswith(BATCHED) else {}
            (folder / "model-settings.json").write_text(json.dumps(model))

    def targets(self, model: str, batching: bool) -> list[Target]:
        return [
            Target(
                self.name,
                "gRPC",
                f"grpc:{HOST}:{self.port}",
                self.name,
                model=served,
                setting=setting,
                python="grpc",
            )
            for served, setting in self.served(model, batching)
        ]
