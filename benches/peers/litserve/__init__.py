"""LitServe: FastAPI in front of Python workers, msgpack in forms over HTTP."""

from ..peer import BATCH_ROWS, BATCH_WAIT_MS, READY_S, Peer, Server, Target, answers
from ..ports import HOST


class LitServe(Peer):
    name = "litserve"
    title = "LitServe"
    package = "litserve"
    settings = (
        "fast_queue (ZeroMQ), one API server, one worker process for each API",
        f"MLP also with max_batch_size {BATCH_ROWS}, batch_timeout {BATCH_WAIT_MS} ms",
    )

    def start(self) -> list[Server]:
        server = self.spawn(
            self.name,
            [self.python, self.folder / "app.py"],
            {
                "PEERS_PORT": str(self.port),
                "PEERS_BATCH": str(BATCH_ROWS),
                "PEERS_WAIT_MS": str(BATCH_WAIT_MS),
                "PEERS_FAST_QUEUE": "1",
            },
        )
        server.wait_ready(lambda: answers(self.port, "/health"), READY_S)
        return [server]

    def targets(self, model: str, batching: bool) -> list[Target]:
        return [
            Target(
                self.name,
                "HTTP, msgpack in a form",
                f"http-multipart:http://{HOST}:{self.port}/{served}",
                self.name,
                setting=setting,
                python="http-multipart",
            )
            for served, setting in self.served(model, batching)
        ]
