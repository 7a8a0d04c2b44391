"""ONNX Runtime for servers that are written in Python: one model, threads as everywhere in a run.

Environment: PEERS_MODELS, a model repository; PEERS_THREADS, threads for one operator.
"""

import os
from pathlib import Path

import numpy as np
import onnxruntime

MODELS = ("identity", "mlp", "fullhd", "resnet50")
SEPARATOR = "__"


class Model:
    """A loaded model with one input and one output."""

    def __init__(self, served_name: str) -> None:
        """Loads the model of a name such as `mlp`, or `mlp__batch`: served under other settings."""
        name = served_name.split(SEPARATOR)[0]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["PEERS_THREADS"])
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            Path(os.environ["PEERS_MODELS"]) / name / "1" / "model.onnx",
            options,
            providers=["CPUExecutionProvider"],
        )
        element = self._session.get_inputs()[0].type
        self.dtype = {"tensor(float)": np.dtype("<f4"), "tensor(uint8)": np.dtype("u1")}[element]

    def run(self, rows: np.ndarray) -> np.ndarray:
        return self._session.run(["output"], {"input": rows})[0]

    def run_together(self, requests: list[np.ndarray]) -> list[np.ndarray]:
        """Runs the rows of several requests as one batch."""
        if len(requests) == 1:
            return [self.run(requests[0])]
        ends = np.cumsum([len(rows) for rows in requests])
        return np.split(self.run(np.concatenate(requests)), ends[:-1])
