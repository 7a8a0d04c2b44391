"""A runtime of MLServer that runs ONNX models. Environment: see serving/engine.py."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from engine import Model


class OnnxRuntime(MLModel):
    async def load(self) -> bool:
        self.model = Model(self.name)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        answer = self.model.run(np.ascontiguousarray(rows, self.model.dtype))
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("output", answer)]
        )
