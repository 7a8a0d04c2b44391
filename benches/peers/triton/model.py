"""A model of Triton's Python backend, for machines that cannot compile backend.cc.

Environment: see serving/engine.py, which is found through PEERS_SERVING.
"""

import os
import sys

import triton_python_backend_utils as triton

sys.path.insert(0, os.environ["PEERS_SERVING"])

from engine import Model


class TritonPythonModel:
    def initialize(self, arguments: dict) -> None:
        self.model = Model(arguments["model_name"])

    def execute(self, requests: list) -> list:
        rows = [triton.get_input_tensor_by_name(r, "input").as_numpy() for r in requests]
        answers = self.model.run_together(rows)
        return [triton.InferenceResponse([triton.Tensor("output", a)]) for a in answers]
