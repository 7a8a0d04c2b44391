"""NVIDIA's load generator, unmodified, in each of its modes. No speed is asserted."""

import csv
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Api

from server import ROOT, Server

PROGRAM = Path(os.environ.get("PERF_ANALYZER", ROOT / "target/perf-analyzer/perf_analyzer"))
CONCURRENCY = ["--concurrency-range", "1:3:2"]
RATE = ["--request-rate-range", "100"]
POISSON = [*RATE, "--request-distribution", "poisson"]


@pytest.mark.parametrize(
    ("api", "model", "options"),
    [
        (api, "add", [*load, "--shared-memory", memory])
        for api in ["grpc", "http"]
        for load in [CONCURRENCY, RATE, POISSON]
        for memory in ["none", "system"]
    ]
    + [
        ("grpc", "add", ["--concurrency-range", "4", "--streaming"]),
        ("grpc", "scale_u8", ["--concurrency-range", "4", "--async"]),
        ("http", "scale_u8", ["--concurrency-range", "4", "--async"]),
        ("grpc", "digits", ["-b", "8", "--shared-memory", "system"]),
        ("http", "digits", ["-b", "8"]),
        ("grpc", "text", ["--shape", "a:3", "--shape", "b:2", "--string-length", "10"]),
        ("http", "text", ["--shape", "a:3", "--shape", "b:2", "--string-length", "10"]),
        ("grpc", "half", ["--grpc-compression-algorithm", "gzip"]),
    ],
    indirect=["api"],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_mode(api: Api, model: str, options: list[str], server: Server, tmp_path: Path) -> None:
    if not PROGRAM.is_file() and shutil.which("dpkg-deb") is None:
        pytest.skip("perf_analyzer is fetched on Debian and its like only")
    assert PROGRAM.is_file(), f"{PROGRAM} is missing; `make oip` fetches it"
    api.client.unregister_system_shared_memory()
    report = tmp_path / "report.csv"
    command = [
        str(PROGRAM),
        *["-m", model, "-i", api.name, "-u", api.url, "-f", str(report)],
        # Short windows, and whatever they show is taken as stable.
        *["--measurement-mode", "count_windows", "--measurement-request-count", "20"],
        *["--measurement-interval", "200", "--stability-percentage", "999", "--max-trials", "5"],
        *["--output-shared-memory-size", "4096"],
        *options,
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    with open(report) as lines:
        rows = [row for row in csv.DictReader(lines) if row.get("Inferences/Second")]
    assert rows
    for row in rows:
        assert float(row["Inferences/Second"]) > 0
        # What it takes from the server's statistics.
        assert float(row["Server Compute Infer"]) >= 0
    # It leaves nothing registered.
    assert api.as_json("get_system_shared_memory_status") in ({}, [], {"regions": {}})
