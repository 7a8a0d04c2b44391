#!/usr/bin/env python3
"""Instructions of the hot path for each request, counted by callgrind.

Runs the server and a client under callgrind, twice with different numbers of requests; the difference
is what one request costs, without start and end. Counts are repeatable whatever else the machine does, so
they are kept in results/instructions.json, and a run fails when one has grown by more than 10 %.

    benches/instructions.py            compare with the kept counts
    benches/instructions.py --write    keep the counts of this run

Needs valgrind (Debian: apt install valgrind), the tools and the models of the Makefile.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benches/results/instructions.json"
TARGET = ROOT / "target/callgrind"
REQUESTS = (2_000, 12_000)
GROWTH_MAX = 1.10
START_SECONDS = 120

# What is counted: the side that it is on, the function, and a function in it that is not ours to shorten. Under
# callgrind a run of the engine takes so long that the server gives the lead up for it; what is counted runs either way.
PARTS = {
    "client_submit": ("client", r"Exchange>::start\b", None),
    "client_harvest": ("client", r"Session>::harvest_locked\b", None),
    "client_conclude": ("client", r"Exchange>::conclude\b", None),
    "server_intake": ("server", r"Engine>::drain_ring\b", None),
    "server_dispatch": ("server", r"Engine>::dispatch\b", None),
    "server_execute": ("server", r"execute::attempt_safely\b", r"raw::runner::Runner::call\b"),
    "server_complete": ("server", r"Engine>::tell\b", None),
    "server_conclude": ("server", r"Engine>::conclude\b", None),
}


def build() -> None:
    # Valgrind hides the vDSO, through which rustix would read the clock.
    environment = os.environ | {
        "RUSTFLAGS": "--cfg rustix_use_libc",
        "CARGO_TARGET_DIR": str(TARGET),
    }
    cargo = os.environ.get("CARGO", "cargo")
    packages = ["-p", "adjoin", "-p", "adjoin-client", "--bin", "adjoin", "--example", "closed_loop"]
    command = [cargo, "build", "--release", "--locked", *packages]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def callgrind(output: Path, *command: str) -> list[str]:
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", "--quiet", *command]


def run(requests: int, directory: Path) -> dict[str, Path]:
    """Profiles of both sides over so many requests."""
    profiles = {side: directory / f"{side}.{requests}" for side in ("server", "client")}
    sockets = directory / f"sockets.{requests}"
    sockets.mkdir()
    config = directory / "config.toml"
    config.write_text("[defaults]\nintra_op_threads = 1\n")
    repository = directory / "models"
    if not repository.exists():
        repository.mkdir()
        (repository / "mlp").symlink_to(ROOT / "target/models/mlp")
    flags = ["--model-repository", repository, "--socket-dir", sockets, "--config", config]
    serve = [TARGET / "release/adjoin", "serve", "--log", "warn", *flags]
    server = subprocess.Popen(callgrind(profiles["server"], *map(str, serve)))
    try:
        until = time.monotonic() + START_SECONDS
        while not (sockets / "attach.sock").exists():
            if server.poll() is not None or time.monotonic() > until:
                sys.exit("instructions: the server did not start")
            time.sleep(0.1)
        client = [TARGET / "release/examples/closed_loop", sockets, "mlp", requests]
        subprocess.run(callgrind(profiles["client"], *map(str, client)), check=True, timeout=600)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
    return profiles


def inclusive(profile: Path) -> list[tuple[int, str]]:
    """Instructions of each function with all that it calls."""
    command = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(profile)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = re.finditer(r"^\s*([\d,]+) \([^)]*\)\s+\S+?:(.*?)(?: \[[^\]]*\])?$", text, re.MULTILINE)
    return [(int(line[1].replace(",", "")), line[2]) for line in lines]


def largest(functions: list[tuple[int, str]], pattern: str) -> int:
    found = [count for count, name in functions if re.search(pattern, name)]
    if not found:
        sys.exit(f"instructions: no function {pattern!r} in the profile; it may have been inlined")
    return max(found)


def count() -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="adjoin-instructions-") as name:
        runs = [run(requests, Path(name)) for requests in REQUESTS]
        profiles = [{side: inclusive(path) for side, path in each.items()} for each in runs]
    counts = {}
    for part, (side, function, foreign) in PARTS.items():
        own = [
            largest(each[side], function) - (largest(each[side], foreign) if foreign else 0)
            for each in profiles
        ]
        counts[part] = round((own[1] - own[0]) / (REQUESTS[1] - REQUESTS[0]))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="keep the counts of this run")
    arguments = parser.parse_args()
    for tool, remedy in (("valgrind", "apt install valgrind"), ("cargo", "https://rustup.rs")):
        if not shutil.which(tool):
            sys.exit(f"instructions: {tool} is missing; {remedy}")
    if not (ROOT / "target/models/mlp").exists():
        sys.exit("instructions: target/models is missing; make models")
    build()
    counts = count()
    if arguments.write:
        kept = {"unit": "instructions for each request, mlp, batch 1", "counts": counts}
        RESULTS.write_text(json.dumps(kept, indent=2) + "\n")
        print(json.dumps(counts, indent=2))
        return
    kept = json.loads(RESULTS.read_text())["counts"]
    grown = []
    for part, new in counts.items():
        old = kept.get(part, 0)
        print(f"{part:26}{old:8}{new:8}{new / old - 1 if old else 1:+8.1%}")
        if new > old * GROWTH_MAX:
            grown.append(part)
    if grown:
        sys.exit(f"instructions: grown by more than {GROWTH_MAX - 1:.0%}: {', '.join(grown)}")


if __name__ == "__main__":
    main()
