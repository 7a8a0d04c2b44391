"""adjoin itself, a release build, over its rings and over the Open Inference Protocol."""

import os
import shutil
import socket
from pathlib import Path

from ..peer import BATCH_ROWS, BATCH_WAIT_MS, BATCHED, READY_S, Peer, Server, Target
from ..ports import HOST
from ..problems import Problem
from ..workloads import MODELS

WAYS = (
    ("gRPC", "grpc", "grpc"),
    ("gRPC, shared memory", "grpc-shm", "grpc-shm"),
    ("HTTP", "http-v2", "http"),
    ("HTTP, shared memory", "http-v2-shm", "http-shm"),
)


class Adjoin(Peer):
    name = "adjoin"
    title = "adjoin"
    settings = (
        "one instance of each model, defaults otherwise: batches up to 32 rows, no queue delay",
        f"MLP also with max_batch_size {BATCH_ROWS}, max_queue_delay {BATCH_WAIT_MS} ms",
    )

    def version(self) -> str:
        return "this checkout"

    def prepare(self) -> None:
        if not os.access(self.site.adjoin, os.X_OK):
            raise Problem(
                f"{self.site.adjoin} is not there; build it: cargo build --release -p adjoin"
            )

    @property
    def sockets(self) -> Path:
        return self.site.scratch / "adjoin"

    def start(self) -> list[Server]:
        server = self.spawn(
            self.name,
            [self.site.adjoin, "serve", "--model-repository", self.write_repository()]
            + ["--socket-dir", self.sockets, "--grpc-addr", f"{HOST}:{self.port}"]
            + ["--http-addr", f"{HOST}:{self.port + 1}", "--allow-named-shm", "/dev/shm"]
            + ["--config", self.write_configuration(), "--onnxruntime", self.site.onnxruntime]
            + ["--log", "warn"],
        )
        server.wait_ready(self.listens, READY_S)
        return [server]

    def listens(self) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def write_configuration(self) -> Path:
        path = self.run_folder / "adjoin.toml"
        path.write_text(
            '[access]\ntcp_rights = ["infer", "inspect", "health", "regions"]\n'
            "[defaults]\n"
            f"intra_op_threads = {self.site.threads}\n"
            f"[models.mlp{BATCHED}]\n"
            f"max_batch_size = {BATCH_ROWS}\n"
            f"max_queue_delay_us = {BATCH_WAIT_MS * 1000}\n"
        )
        return path

    def write_repository(self) -> Path:
        repository = self.run_folder / "repository"
        shutil.rmtree(repository, ignore_errors=True)
        for served, model in [*zip(MODELS, MODELS, strict=True), ("mlp" + BATCHED, "mlp")]:
            version = repository / served / "1"
            version.mkdir(parents=True)
            shutil.copy(self.site.model_file(model), version)
        return repository

    def targets(self, model: str, batching: bool) -> list[Target]:
        waits = f"batches up to {BATCH_ROWS}, 1 ms wait"
        settings = [(model, ""), (model + BATCHED, waits)] if batching else [(model, "")]
        rings = [
            Target(
                self.name,
                "shared memory",
                f"adjoin:{self.sockets}",
                self.name,
                model=served,
                setting=setting,
                python="adjoin",
            )
            for served, setting in settings
        ]
        protocols = [
            Target(
                self.name,
                way,
                f"{protocol}:{HOST}:{self.port + protocol.startswith('http')}",
                self.name,
                model=model,
                python=python,
                second=True,
            )
            for way, protocol, python in WAYS
        ]
        return [*rings, *protocols]
