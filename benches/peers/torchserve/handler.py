"""A handler of TorchServe that runs ONNX models on msgpack bodies. Environment: see
serving/engine.py and serving/codec.py, which are found through PYTHONPATH.
"""

from codec import pack, unpack
from engine import Model

loaded: Model | None = None


def handle(requests: list[dict] | None, context) -> list[bytes]:
    """TorchServe calls this with all requests of a batch, and once with none when it starts."""
    global loaded
    if loaded is None:
        loaded = Model(context.manifest["model"]["modelName"])
    if not requests:
        return []
    rows = [unpack(bytes(request["body"]), loaded.dtype) for request in requests]
    return [pack(answer) for answer in loaded.run_together(rows)]
