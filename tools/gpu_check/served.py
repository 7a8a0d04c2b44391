"""A model served on the device, under load: `python3 -m gpu_check.served`.

Starts the `adjoin` command on a repository of one model, has `adjoin bench` call it with requests of each size, and reads from the
server's metrics who copied the bytes. The last line is one JSON object.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from .serving import MODEL, ServedError, serving

BYTES = "adjoin_device_bytes_total"
WARM_UP_SECONDS = 1.0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="gpu_check.served", description=__doc__)
    made.add_argument("--adjoin", type=Path, required=True, help="the command, built with what the model needs")
    made.add_argument("--model", type=Path, required=True, help="model.plan or model.onnx")
    made.add_argument(
        "--variant", nargs=2, action="append", metavar=("NAME", "PBTXT"), required=True,
        help="a configuration of the model, and what to call it; repeated, one after the other",
    )
    made.add_argument("--serve", default="", help="further arguments for `adjoin serve`")
    made.add_argument("--clients", type=int, default=16)
    made.add_argument("--rows", type=int, nargs="+", default=[1])
    made.add_argument("--pipeline", type=int, nargs="+", default=[1], help="requests that each client has under way at once")
    made.add_argument("--spin-us", type=int, metavar="US", help="how long server and clients look before they sleep")
    made.add_argument("--untouched", action="store_true", help="inputs stay as they were written once")
    made.add_argument("--seconds", type=float, default=5.0, help="for each number of rows")
    return made


def main() -> int:
    arguments = parser().parse_args()
    try:
        variants = {}
        for name, config in arguments.variant:
            with tempfile.TemporaryDirectory(prefix="gpu-check-") as directory:
                variants[name] = measure(arguments, config, Path(directory))
        print(json.dumps({"clients": arguments.clients, "variants": variants}))
    except ServedError as error:
        print(f"gpu_check.served: {error}", file=sys.stderr)
        return 1
    return 0


def measure(arguments: argparse.Namespace, config: str, directory: Path) -> dict:
    """The figures of one model under one configuration."""
    serve = arguments.serve
    if arguments.spin_us is not None:
        file = directory / "adjoin.toml"
        file.write_text(f"[server]\nspin_us = {arguments.spin_us}\n[cuda]\nspin_us = {arguments.spin_us}\n")
        serve += f" --config {file}"
    with serving(arguments.adjoin, arguments.model, config, serve, directory) as server:
        # What a worker does once for each size that is new to it is not what is measured.
        loads = list(itertools.product(arguments.rows, arguments.pipeline))
        for rows, pipeline in loads:
            load(arguments, server.sockets, rows, pipeline, min(arguments.seconds, WARM_UP_SECONDS))
        before = copied(server.metrics)
        served = [load(arguments, server.sockets, rows, pipeline, arguments.seconds) for rows, pipeline in loads]
        after = copied(server.metrics)
    moved = {path: after[path] - before[path] for path in after}
    if moved["direct"] == 0:
        raise ServedError("the device read nothing by itself: no region was registered")
    count = sum(row["requests"] * row["rows"] for row in served)
    return {"served": served, "bytes": moved, "bytes_per_row": round(sum(moved.values()) / count)}


def load(arguments: argparse.Namespace, sockets: Path, rows: int, pipeline: int, seconds: float) -> dict:
    """What clients got with requests of so many rows, so many at once."""
    command = [arguments.adjoin, "bench", MODEL, "--socket-dir", sockets, "--json"]
    command += ["--clients", arguments.clients, "--seconds", seconds, "--batch", rows, "--pipeline", pipeline]
    if arguments.spin_us is not None:
        # A client looks for no longer than this.
        command += ["--spin-us", min(arguments.spin_us, 20_000)]
    if arguments.untouched:
        command.append("--untouched")
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise ServedError(f"adjoin bench ended with {ended.returncode}: {ended.stderr.strip()}")
    return {"rows": rows, "pipeline": pipeline, **figures(json.loads(ended.stdout))}


def figures(report: dict) -> dict:
    """What people look for in a report of `adjoin bench`."""
    keys = ("requests", "requests_per_s", "p50_us", "p99_us", "mean_batch_rows", "server_cpu_us_per_request", "bytes_copied")
    return {key: report[key] for key in keys}


def copied(address: str) -> dict:
    """Bytes between host and device so far, both ways, by path."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return by_path(answer.read().decode())


def by_path(text: str) -> dict:
    """The same from the text of the metrics."""
    counts = {"direct": 0, "staged": 0, "pageable": 0}
    for line in text.splitlines():
        if not line.startswith(BYTES):
            continue
        labels, value = line.rsplit(" ", 1)
        for path in counts:
            if f'path="{path}"' in labels:
                counts[path] += int(float(value))
    return counts


if __name__ == "__main__":
    sys.exit(main())
