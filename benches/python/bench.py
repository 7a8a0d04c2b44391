"""What a request costs from Python, beside the Rust client and the same model in this process.

Starts one server, then takes turns: the Rust client (`adjoin bench`, a process of its own), this
package's forms, and onnxruntime in this process, all with one thread of the engine. Writes medians,
and differences of the medians of one round, as JSON.

Needs: benches/python/run.sh, which builds the package in release and installs what is pinned in
requirements.txt.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import adjoin
import numpy as np
import onnxruntime

MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"batch": 1},
    "identity": {"shapes": {"input": (1, 150528)}},
}
IN_FLIGHT = 64
SHORT = 0.05
"""Seconds of warm-up before each phase."""

Times = list[int]
Phase = Callable[[float], Times]


@contextlib.contextmanager
def served(options: argparse.Namespace) -> Iterator[str]:
    """The socket directory of a server over the bench models."""
    with tempfile.TemporaryDirectory(prefix="adjoin-") as folder:
        # Only those models, and not what takes seconds to load.
        repository = Path(folder) / "models"
        repository.mkdir()
        for name in MODELS:
            (repository / name).symlink_to(Path(options.models, name).resolve())
        config = Path(folder) / "adjoin.toml"
        config.write_text("[defaults]\nintra_op_threads = 1\n")
        socket_dir = f"{folder}/run"
        command = [
            options.adjoin,
            "serve",
            f"--model-repository={repository}",
            f"--socket-dir={socket_dir}",
            f"--config={config}",
        ]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            for _ in range(2000):
                with contextlib.suppress(adjoin.ServerUnavailable):
                    adjoin.connect(socket_dir).close()
                    break
                time.sleep(0.01)
            yield socket_dir
        finally:
            server.terminate()
            server.wait()


def clocked(call: Callable[[], object], before: Callable[[], object] | None = None) -> Phase:
    """A phase of calls, each with its time in ns; `before` runs outside the clock."""

    def phase(seconds: float) -> Times:
        clock, times = time.perf_counter_ns, []
        end = clock() + int((SHORT + seconds) * 1e9)
        counted = clock() + int(SHORT * 1e9)
        while True:
            if before is not None:
                before()
            began = clock()
            call()
            done = clock()
            if began >= counted:
                times.append(done - began)
            if done >= end:
                return times

    return phase


class Case:
    """One model with one shape, in all forms."""

    def __init__(
        self, socket_dir: str, options: argparse.Namespace, name: str, dims: dict[str, Any]
    ) -> None:
        self.name = name
        self.client = adjoin.connect(socket_dir, request_bytes=256 << 20, response_bytes=256 << 20)
        self.model = self.client.model(name)
        self.spec = self.model.inputs[0]
        self.request = self.model.request(**dims)
        shape = self.request[self.spec.name].shape
        self.x = np.random.default_rng(1).standard_normal(shape, np.float32)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        file = next(Path(options.models, name).glob("*/model.onnx"))
        self.session = onnxruntime.InferenceSession(
            file, settings, providers=["CPUExecutionProvider"]
        )
        self.output = self.model.outputs[0].name

    def phases(self) -> dict[str, Phase]:
        name, output, x = self.spec.name, self.output, self.x
        request, model, session = self.request, self.model, self.session
        view = request[name]

        values = itertools.cycle((0.25, 0.5))

        def write() -> None:
            view.fill(next(values))

        def infer() -> None:
            with request.infer() as result:
                result[output]

        def write_and_infer() -> None:
            request[name][:] = x
            with request.infer() as result:
                result[output]

        fixed_in, fixed_out = np.empty_like(x), np.empty_like(session.run(None, {name: x})[0])
        binding = session.io_binding()
        binding.bind_input(name, "cpu", 0, np.float32, x.shape, fixed_in.ctypes.data)
        binding.bind_output(output, "cpu", 0, np.float32, fixed_out.shape, fixed_out.ctypes.data)

        def fill() -> None:
            fixed_in.fill(next(values))

        return {
            "prepared": clocked(infer, write),
            "prepared_untouched": clocked(infer),
            "prepared_and_write": clocked(write_and_infer),
            "short_form": clocked(lambda: model(**{name: x})),
            "in_process_fixed": clocked(lambda: session.run_with_iobinding(binding), fill),
            "in_process_run": clocked(lambda: session.run(None, {name: x})),
        }

    def per_second(self, seconds: float) -> float:
        """Awaited requests a second, with `IN_FLIGHT` under way."""

        async def main() -> float:
            count, end = 0, time.perf_counter() + SHORT + seconds
            began = time.perf_counter() + SHORT

            async def task() -> None:
                nonlocal count
                while (now := time.perf_counter()) < end:
                    await self.model.infer_async(**{self.spec.name: self.x})
                    count += now >= began

            await asyncio.gather(*[task() for _ in range(IN_FLIGHT)])
            return count / seconds

        return asyncio.run(main())


def rust(options: argparse.Namespace, socket_dir: str, case: Case, *flags: str) -> dict[str, Any]:
    shape = ",".join(map(str, case.x.shape))
    command = [
        options.adjoin,
        "bench",
        case.name,
        f"--socket-dir={socket_dir}",
        f"--model-repository={options.models}",
        f"--shape={case.spec.name}={shape}",
        f"--seconds={options.seconds}",
        "--threads=1",
        "--json",
        *flags,
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def median_us(times: Times) -> float:
    return statistics.median(times) / 1000


def measure(options: argparse.Namespace, socket_dir: str, case: Case) -> dict[str, Any]:
    rounds: list[dict[str, float]] = []
    phases = case.phases()
    for number in range(options.rounds):
        row = {
            "rust": rust(options, socket_dir, case)["p50_us"],
            "rust_untouched": rust(options, socket_dir, case, "--untouched")["p50_us"],
        }
        names = list(phases)
        # Every form comes at every place of a round.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            row[name] = median_us(phases[name](options.seconds))
        row["asyncio_per_s"] = case.per_second(options.seconds)
        rounds.append(row)
    pairs = [
        ("prepared", "rust"),
        ("prepared_untouched", "rust_untouched"),
        ("prepared", "in_process_fixed"),
        ("short_form", "in_process_run"),
    ]
    return {
        "model": case.name,
        "input_bytes": case.x.nbytes,
        "median_us": {
            name: round(statistics.median(row[name] for row in rounds), 2)
            for name in rounds[0]
            if name != "asyncio_per_s"
        },
        "paired_difference_us": {
            f"{one} - {other}": round(statistics.median(row[one] - row[other] for row in rounds), 2)
            for one, other in pairs
        },
        "asyncio_per_s": round(statistics.median(row["asyncio_per_s"] for row in rounds)),
        "asyncio_in_flight": IN_FLIGHT,
        "rounds": rounds,
    }


def tritonclient_row(options: argparse.Namespace, case: Case) -> Any:
    """tritonclient's shared-memory call against a server that is given, for the same model."""
    if options.triton_url is None:
        return "not run: no server given (--triton-url)"
    import tritonclient.grpc as grpc
    from tritonclient.utils import shared_memory

    client = grpc.InferenceServerClient(options.triton_url)
    regions = {}
    for kind, nbytes in (("in", case.x.nbytes), ("out", case.x.nbytes)):
        regions[kind] = shared_memory.create_shared_memory_region(kind, f"/adjoin_{kind}", nbytes)
        client.register_system_shared_memory(kind, f"/adjoin_{kind}", nbytes)
    try:
        tensor = grpc.InferInput(case.spec.name, list(case.x.shape), "FP32")
        tensor.set_shared_memory("in", case.x.nbytes)
        wanted = grpc.InferRequestedOutput(case.output)
        wanted.set_shared_memory("out", case.x.nbytes)

        def call() -> None:
            shared_memory.set_shared_memory_region(regions["in"], [case.x])
            client.infer(case.name, [tensor], outputs=[wanted])

        return {"median_us": round(median_us(clocked(call)(options.seconds)), 2)}
    finally:
        for kind, region in regions.items():
            client.unregister_system_shared_memory(kind)
            shared_memory.destroy_shared_memory_region(region)


def machine() -> str:
    with open("/proc/cpuinfo") as info:
        model = next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    return f"{os.cpu_count()} cores, {model}, Linux {platform.release()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adjoin", default="target/release/adjoin", help="the command")
    parser.add_argument("--models", default="target/models", help="repository of the bench models")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each phase")
    parser.add_argument("--out", type=Path, help="file for the JSON; default: print it")
    parser.add_argument("--triton-url", help="host:port of a server for tritonclient's row")
    options = parser.parse_args()
    results: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "adjoin": adjoin.__version__,
        "seconds_of_a_phase": options.seconds,
        "engine_threads": 1,
        "cases": [],
    }
    with served(options) as socket_dir:
        for name, dims in MODELS.items():
            case = Case(socket_dir, options, name, dims)
            row = measure(options, socket_dir, case)
            row["tritonclient_shared_memory"] = tritonclient_row(options, case)
            results["cases"].append(row)
            case.client.close()
    text = json.dumps(results, indent=2) + "\n"
    if options.out:
        options.out.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
