"""MOSEC: a route for each model, and one where requests for the MLP are batched.

Environment: see serving/engine.py; PEERS_BATCH, rows of a batch; PEERS_WAIT_MS, how long it may
take.
"""

import os

from mosec import Runtime, Server, Worker
from mosec.mixin import MsgpackMixin

from codec import from_map, to_map
from engine import MODELS, Model


class Infer(MsgpackMixin, Worker):
    """Runs the model that the environment of its own process names."""

    def __init__(self) -> None:
        self.model = Model(os.environ["PEERS_SERVED"])

    def forward(self, data: dict | list[dict]) -> dict | list[dict]:
        if isinstance(data, dict):
            return to_map(self.model.run(from_map(data, self.model.dtype)))
        requests = [from_map(request, self.model.dtype) for request in data]
        return [to_map(answer) for answer in self.model.run_together(requests)]


def runtime(served: str, batch: int, wait_ms: int) -> Runtime:
    return Runtime(
        Infer,
        max_batch_size=batch,
        max_wait_time=wait_ms,
        timeout=120,
        env=[{"PEERS_SERVED": served}],
    )


if __name__ == "__main__":
    server = Server()
    routes = {f"/{name}": [runtime(name, 1, 0)] for name in MODELS}
    routes["/mlp__batch"] = [
        runtime("mlp__batch", int(os.environ["PEERS_BATCH"]), int(os.environ["PEERS_WAIT_MS"]))
    ]
    server.register_runtime(routes)
    server.run()
