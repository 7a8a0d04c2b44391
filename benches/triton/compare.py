"""perf_analyzer, NVIDIA's load generator, against adjoin and against Triton.

The same models and settings, in turns:

    PYTHONPATH=benches python3 benches/triton/compare.py [--rounds N] [--out FILE]

Needs: make models, a release build of adjoin, ADJOIN_ONNXRUNTIME, and what fetch.sh and
`make bench-peers` install. Writes one JSON document: each cell with the median over the rounds
of its requests/s, p50 and p99, both servers' settings, machine and date.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

from peers import machine, roster
from peers.layout import Layout
from peers.peer import Site

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/perf-analyzer/perf_analyzer"
SHAPES = {"mlp": "input:128", "identity": "input:150528"}
APIS = ("grpc", "http")
MEMORY = ("none", "system")
CONCURRENCY = (1, 4, 16)
BASE_PORT = 18400


def cells() -> list[tuple[str, str, str, int]]:
    """Model, protocol, shared memory, concurrency. Not large messages with many under way: there perf_analyzer keeps
    what it sent, takes gigabytes of memory and comes to no end, whatever the server.
    """
    everything = product(SHAPES, APIS, MEMORY, CONCURRENCY)
    return [cell for cell in everything if cell[0] == "mlp" or cell[2] == "system" or cell[3] == 1]


def measure(
    model: str, api: str, memory: str, concurrency: int, url: str
) -> dict[str, float] | None:
    """One run: requests/s, and latencies in microseconds; None if perf_analyzer gives up."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.csv"
        command = [PROGRAM, "-m", model, "-i", api, "-u", url, "-f", report]
        command += ["--shared-memory", memory, "--concurrency-range", str(concurrency)]
        command += ["--output-shared-memory-size", "1048576", "--shape", SHAPES[model]]
        command += ["-x", "1", "--measurement-interval", "700", "--max-trials", "3"]
        command += ["--stability-percentage", "1000000", "--percentile", "99"]
        cell = f"{model} {api} {memory} {concurrency} at {url}"
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        except subprocess.TimeoutExpired:
            print(f"{cell}: no end after 120 s", file=sys.stderr)
            return None
        if ran.returncode != 0:
            words = (ran.stdout + ran.stderr).split("\n\n")[-1].strip()
            print(f"{cell}: {words}", file=sys.stderr)
            return None
        with open(report) as lines:
            row = next(csv.DictReader(lines))
        return {
            "requests_per_s": float(row["Inferences/Second"]),
            "p50_us": float(row["p50 latency"]),
            "p99_us": float(row["p99 latency"]),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benches/results/perf-analyzer.json")
    options = parser.parse_args()
    # So that the servers end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    release = ROOT / "target/release"
    site = Site(
        Layout(ROOT / "target/peers"),
        ROOT / "target/models",
        release / "adjoin",
        release / "adjoin-loadgen",
        Path(os.environ["ADJOIN_ONNXRUNTIME"]),
        1,
        BASE_PORT,
        mark=f"perf-{os.getpid()}",
    )
    seen: dict[tuple[str, str, str, int], dict[str, list[dict[str, float]]]] = {}
    with ExitStack() as stack:
        site.scratch.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, site.scratch, ignore_errors=True)
        peers = roster.make(site, roster.select("adjoin,triton"))
        for peer in peers:
            peer.prepare()
            for server in peer.start():
                stack.callback(server.stop)
        for turn in range(options.rounds):
            print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
            for cell in cells():
                model, api, memory, concurrency = cell
                for peer in peers:
                    url = f"127.0.0.1:{peer.port + (api == 'http')}"
                    said = measure(model, api, memory, concurrency, url)
                    rounds = seen.setdefault(cell, {}).setdefault(peer.name, [])
                    if said is not None:
                        rounds.append(said)
    rows = []
    for (model, api, memory, concurrency), by_peer in seen.items():
        row: dict[str, object] = {
            "model": model,
            "api": api,
            "shared_memory": memory,
            "concurrency": concurrency,
        }
        for name, rounds in by_peer.items():
            medians = {
                key: round(statistics.median(one[key] for one in rounds), 1)
                for key in (rounds[0] if rounds else ())
            }
            row[name] = medians or "perf_analyzer gave up"
        rows.append(row)
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.facts(),
        "commit": machine.commit(),
        "perf_analyzer": (Path(__file__).parent / "requirements.txt").read_text().split(),
        "rounds": options.rounds,
        "settings": {peer.name: [*peer.settings, *peer.notes] for peer in peers},
        "rows": rows,
    }
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
