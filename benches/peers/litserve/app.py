"""LitServe: an API for each model, and one where requests for the MLP are batched.

Bodies are forms with one file, `data`, as LitServe parses JSON and forms only. Environment: see
serving/engine.py; PEERS_PORT; PEERS_BATCH, rows of a batch; PEERS_WAIT_MS, how long it may take;
PEERS_FAST_QUEUE, 1 for ZeroMQ between its processes.
"""

import os

import litserve
import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from codec import pack, unpack
from engine import MODELS, Model


class Infer(litserve.LitAPI):
    def __init__(self, served: str, **batching: float) -> None:
        super().__init__(api_path=f"/{served}", **batching)
        self.served = served

    def setup(self, device: str) -> None:
        self.model = Model(self.served)

    def decode_request(self, request: Request) -> np.ndarray:
        return unpack(request["data"].file.read(), self.model.dtype)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.model.run(rows)

    def encode_response(self, answer: np.ndarray) -> Response:
        return Response(pack(answer), media_type="application/msgpack")


class InferTogether(Infer):
    def batch(self, requests: list[np.ndarray]) -> list[np.ndarray]:
        return requests

    def predict(self, requests: list[np.ndarray]) -> list[np.ndarray]:
        return self.model.run_together(requests)

    def unbatch(self, answers: list[np.ndarray]) -> list[np.ndarray]:
        return answers


if __name__ == "__main__":
    apis = [Infer(name) for name in MODELS]
    apis.append(
        InferTogether(
            "mlp__batch",
            max_batch_size=int(os.environ["PEERS_BATCH"]),
            batch_timeout=float(os.environ["PEERS_WAIT_MS"]) / 1000,
        )
    )
    server = litserve.LitServer(
        apis,
        accelerator="cpu",
        workers_per_device=1,
        timeout=120,
        fast_queue=os.environ["PEERS_FAST_QUEUE"] == "1",
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PEERS_PORT"]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
