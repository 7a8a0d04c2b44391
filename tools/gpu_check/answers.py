"""Whether a model served on the device answers what the engine answers on the processor: `python3 -m gpu_check.answers`.

Several client processes call the model at one time, each with inputs of its own, so that batches are made of several sessions'
requests. The last line is one JSON object.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
from pathlib import Path

from .serving import MODEL, ServedError, serving


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="gpu_check.answers", description=__doc__)
    made.add_argument("--adjoin", type=Path, required=True, help="the command, built with what the model needs")
    made.add_argument("--model", type=Path, required=True, help="model.onnx with one input and one output, both float32")
    made.add_argument("--config", required=True, help="the model's configuration")
    made.add_argument("--serve", default="", help="further arguments for `adjoin serve`")
    made.add_argument("--clients", type=int, default=8)
    made.add_argument("--requests", type=int, default=20, help="of each client")
    made.add_argument("--rows", type=int, default=3, help="most rows of a request")
    made.add_argument("--tolerance", type=float, default=1e-3, help="norm of the difference by norm of the answer, at most")
    return made


def main() -> int:
    arguments = parser().parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="gpu-check-") as directory:
            differences = ask(arguments, Path(directory))
        worst = max(differences)
        # Written so that what is no number is too far off as well.
        if not worst <= arguments.tolerance:
            raise ServedError(f"an answer is off by {worst:.2e} of its norm; at most {arguments.tolerance:.0e} is expected")
        print(json.dumps({"answers_compared": len(differences), "largest_relative_difference": worst}))
    except ServedError as error:
        print(f"gpu_check.answers: {error}", file=sys.stderr)
        return 1
    return 0


def ask(arguments: argparse.Namespace, directory: Path) -> list[float]:
    """How far each answer is off."""
    with serving(arguments.adjoin, arguments.model, arguments.config, arguments.serve, directory) as server:
        # Not forked: a client and an engine of the parent's would not survive that.
        with multiprocessing.get_context("spawn").Pool(arguments.clients) as clients:
            calls = [(arguments, server.sockets, number) for number in range(arguments.clients)]
            return [difference for of_client in clients.starmap(client, calls) for difference in of_client]


def client(arguments: argparse.Namespace, sockets: Path, number: int) -> list[float]:
    """The answers to one client."""
    import adjoin  # noqa: PLC0415 - the other steps need none of them
    import numpy as np  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    engine = onnxruntime.InferenceSession(str(arguments.model), options, providers=["CPUExecutionProvider"])
    source, target = engine.get_inputs()[0], engine.get_outputs()[0]
    random = np.random.default_rng(number)
    asked = []
    with adjoin.connect(sockets, request_bytes=64 << 20) as session:
        model = session.model(MODEL)
        for _ in range(arguments.requests):
            rows = int(random.integers(1, arguments.rows + 1))
            batch = random.standard_normal([rows, *source.shape[1:]], np.float32)
            asked.append((batch, model({source.name: batch})[target.name]))
    differences = []
    for batch, answer in asked:
        expected = engine.run(None, {source.name: batch})[0]
        differences.append(float(np.linalg.norm(answer - expected) / np.linalg.norm(expected)))
    return differences


if __name__ == "__main__":
    sys.exit(main())
