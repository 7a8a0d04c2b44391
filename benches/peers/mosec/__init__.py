"""MOSEC: a web server in Rust in front of Python workers, msgpack over HTTP."""

from ..peer import (
    BATCH_ROWS,
    BATCH_WAIT_MS,
    MESSAGE_BYTES,
    READY_S,
    Peer,
    Server,
    Target,
    answers,
)
from ..ports import HOST


class Mosec(Peer):
    name = "mosec"
    title = "MOSEC"
    package = "mosec"
    settings = (
        "MsgpackMixin, one worker process for each route, spawned",
        f"MLP also with max_batch_size {BATCH_ROWS}, max_wait_time {BATCH_WAIT_MS} ms",
    )

    def start(self) -> list[Server]:
        server = self.spawn(
            self.name,
            [self.python, self.folder / "app.py"]
            + ["--address", HOST, "--port", str(self.port)]
            + ["--path", self.site.scratch / "mosec"]
            + ["--timeout", "120000", "--max-request-size", str(MESSAGE_BYTES)]
            + ["--log-level", "warning"],
            {"PEERS_BATCH": str(BATCH_ROWS), "PEERS_WAIT_MS": str(BATCH_WAIT_MS)},
        )
        server.wait_ready(lambda: answers(self.port, "/"), READY_S)
        return [server]

    def targets(self, model: str, batching: bool) -> list[Target]:
        return [
            Target(
                self.name,
                "HTTP, msgpack",
                f"http-msgpack:http://{HOST}:{self.port}/{served}",
                self.name,
                setting=setting,
                python="http-msgpack",
            )
            for served, setting in self.served(model, batching)
        ]
