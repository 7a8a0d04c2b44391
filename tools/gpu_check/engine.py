"""The engine alone, in the process of its caller: `python3 -m gpu_check.engine`.

What a served model is compared with. ONNX Runtime's own Python package runs the model over and over, with inputs and outputs that
stay on the device, so that nothing is copied; and once more with arrays of the host, as a program without a server would. The last
line is one JSON object.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

WARM_UP_RUNS = 20
DEVICE = 0


class EngineError(Exception):
    """The engine cannot do what is asked."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="gpu_check.engine", description=__doc__)
    made.add_argument("--model", type=Path, required=True, help="model.onnx with one input and one output, both float32")
    made.add_argument("--rows", type=int, nargs="+", default=[1])
    made.add_argument("--seconds", type=float, default=1.0, help="for each measurement")
    made.add_argument("--processor", action="store_true", help="on the processor instead: a walk, not a measurement")
    return made


def main() -> int:
    arguments = parser().parse_args()
    try:
        print(json.dumps(measure(arguments)))
    except EngineError as error:
        print(f"gpu_check.engine: {error}", file=sys.stderr)
        return 1
    return 0


def measure(arguments: argparse.Namespace) -> dict:
    import numpy as np  # noqa: PLC0415 - the other steps need neither
    import onnxruntime  # noqa: PLC0415

    engine = {"release": onnxruntime.__version__}
    for name, graphs in (("plain", False), ("graphs", True)):
        if graphs and arguments.processor:
            continue
        engine[name] = []
        for rows in arguments.rows:
            # A session that captures graphs captures one for the first shape it sees.
            session = open_session(onnxruntime, arguments, graphs)
            shape = [rows, *session.get_inputs()[0].shape[1:]]
            batch = np.random.default_rng(rows).standard_normal(shape, np.float32)
            row = {"rows": rows, "on_device": timed(bound(onnxruntime, session, batch, arguments), arguments.seconds)}
            if not graphs:
                row["with_copies"] = timed(plain(session, batch), arguments.seconds)
            engine[name].append(row)
    return {"engine": engine}


def open_session(onnxruntime, arguments: argparse.Namespace, graphs: bool):
    """A session that has nothing but the device to run on."""
    if arguments.processor:
        return onnxruntime.InferenceSession(str(arguments.model), providers=["CPUExecutionProvider"])
    options = {"device_id": DEVICE, "enable_cuda_graph": "1" if graphs else "0"}
    session = onnxruntime.InferenceSession(
        str(arguments.model), providers=[("CUDAExecutionProvider", options), "CPUExecutionProvider"]
    )
    # It takes the processor without a word where the device's libraries are not there.
    if "CUDAExecutionProvider" not in session.get_providers():
        raise EngineError(f"the session runs on {session.get_providers()}, not on the device")
    return session


def bound(onnxruntime, session, batch, arguments: argparse.Namespace) -> Callable[[], None]:
    """A run whose input and output lie on the device."""
    device = "cpu" if arguments.processor else "cuda"
    source, target = session.get_inputs()[0], session.get_outputs()[0]
    output_shape = [batch.shape[0], *target.shape[1:]]
    binding = session.io_binding()
    held = onnxruntime.OrtValue.ortvalue_from_numpy(batch, device, DEVICE)
    made = onnxruntime.OrtValue.ortvalue_from_shape_and_type(output_shape, batch.dtype, device, DEVICE)
    binding.bind_ortvalue_input(source.name, held)
    binding.bind_ortvalue_output(target.name, made)

    def run(_keep=(held, made)) -> None:
        session.run_with_iobinding(binding)

    return run


def plain(session, batch) -> Callable[[], None]:
    """A run over arrays of the host."""
    name = session.get_inputs()[0].name

    def run() -> None:
        session.run(None, {name: batch})

    return run


def timed(run: Callable[[], None], seconds: float) -> dict:
    """What a call takes, called over and over."""
    for _ in range(WARM_UP_RUNS):
        run()
    times = []
    begin = time.perf_counter()
    end = begin + seconds
    while (started := time.perf_counter()) < end:
        run()
        times.append(time.perf_counter() - started)
    quantiles = statistics.quantiles(times, n=100) if len(times) > 1 else times * 99
    microseconds = [round(quantiles[at] * 1e6, 1) for at in (49, 98)]
    return {"runs": len(times), "p50_us": microseconds[0], "p99_us": microseconds[1], "runs_per_s": round(len(times) / (time.perf_counter() - begin), 1)}


if __name__ == "__main__":
    sys.exit(main())
