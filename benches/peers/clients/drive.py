"""Python clients of one target, as many processes as asked for, driven by lines on standard input.

Writes one JSON object a line: first `{"ready": true, ..}` or `{"error": ".."}`, then for each line
with a number of seconds what the clients did in that time, each calling again as soon as it has its
answer. Ends with its standard input.
"""

import argparse
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from multiprocessing.connection import Connection

import numpy as np

from ways import WAYS, Job

WARMUP_CALLS = 10
# Enough for a client that is already under way to hear of the phase.
START_DELAY_S = 0.02


def client(way: str, job: Job, expected: np.ndarray | None, orders: Connection) -> None:
    """One client: connects, checks an answer, then works through phases until there are no more."""
    try:
        call = WAYS[way](job)
        for _ in range(WARMUP_CALLS):
            answer = call()
        if expected is not None:
            np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-4)
    except BaseException as problem:
        orders.send({"error": " ".join(f"{type(problem).__name__}: {problem}".split())[:300]})
        return
    orders.send({"ready": True})
    while True:
        try:
            start, end = orders.recv()
        except EOFError:
            return
        orders.send(phase(call, start, end))


def phase(call, start: float, end: float) -> dict:
    time.sleep(max(0.0, start - time.monotonic()))
    before = processor_s()
    latencies = []
    while time.monotonic() < end:
        begin = time.perf_counter_ns()
        call()
        latencies.append(time.perf_counter_ns() - begin)
    return {"latencies": latencies, "processor_s": processor_s() - before}


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def summary(parts: list[dict], seconds: float) -> dict:
    latencies = np.concatenate([part["latencies"] for part in parts]) / 1e3
    used = sum(part["processor_s"] for part in parts)
    p50, p99 = np.percentile(latencies, [50, 99])
    return {
        "requests": len(latencies),
        "requests_per_s": len(latencies) / seconds,
        "p50_us": float(p50),
        "p99_us": float(p99),
        "client_cpu_us_per_request": used * 1e6 / len(latencies),
    }


def say(line: dict) -> None:
    print(json.dumps(line), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", required=True, choices=[*WAYS])
    parser.add_argument("--address", default="")
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", required=True, choices=["FP32", "UINT8"])
    parser.add_argument("--shape", required=True)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--segment", required=True, help="beginning of names of shared memory")
    return parser.parse_args()


def make_rows(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng(1)
    if dtype == "UINT8":
        return random.integers(0, 256, shape, np.uint8)
    return random.standard_normal(shape, np.float32)


def main() -> None:
    args = arguments()
    rows = make_rows(args.dtype, tuple(int(part) for part in args.shape.split(",")))
    expected = WAYS["in-process"](Job("", args.model, rows, (), ""))()
    # Ends the clients too: they are in the same group, and see the end of their pipe.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    # Forked, so that they load their libraries once. None has a connection or a thread yet.
    context = multiprocessing.get_context("fork")
    pipes = []
    for number in range(args.clients):
        ours, theirs = context.Pipe()
        segment = f"{args.segment}_{os.getpid()}_{number}"
        job = Job(args.address, args.model, rows, expected.shape, segment)
        context.Process(target=client, args=(args.way, job, expected, theirs), daemon=True).start()
        theirs.close()
        pipes.append(ours)

    said = [pipe.recv() for pipe in pipes]
    failed = next((line for line in said if "error" in line), None)
    if failed:
        say(failed)
        sys.exit(1)
    say({"ready": True, "input_bytes": rows.nbytes, "output_bytes": expected.nbytes})
    for line in sys.stdin:
        seconds = float(line)
        start = time.monotonic() + START_DELAY_S
        for pipe in pipes:
            pipe.send((start, start + seconds))
        say(summary([pipe.recv() for pipe in pipes], seconds))


if __name__ == "__main__":
    main()
