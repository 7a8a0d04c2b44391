"""Parts that are easier to look at alone."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from peers import install, roster, summary, tables
from peers.install import UNREACHABLE
from peers.layout import PACKAGE
from peers.peer import Target
from peers.problems import Problem, Unavailable
from peers.processes import Server, marked
from peers.workloads import FULL, SHORT, Open, Python, plan

REQUIREMENTS = sorted(PACKAGE.glob("*/requirements.txt"))
MARK = "test-parts"


def target(setting: str, way: str = "way") -> Target:
    return Target("peer", way, "address", "server", setting=setting)


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.parent.name)
def test_requirements_pin_exact_versions(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]

    assert lines
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._!+]+", line), line


def test_every_python_peer_has_the_same_engine() -> None:
    pinned = {
        pins["onnxruntime"]
        for path in REQUIREMENTS
        if "onnxruntime" in (pins := install.pins(path))
    }

    assert len(pinned) == 1


@pytest.mark.parametrize(
    "said",
    [
        "Failed to establish a new connection: [Errno 111] Connection refused",
        "Failed to establish a new connection: [Errno -3] Temporary failure in name resolution",
        "[Errno 101] Network is unreachable",
    ],
)
def test_a_network_that_is_not_there_is_recognised(said: str) -> None:
    assert UNREACHABLE.search(said)


def test_a_package_that_is_not_there_is_not_taken_for_a_missing_network() -> None:
    said = "ERROR: No matching distribution found for torch==1.13.1"

    assert not UNREACHABLE.search(said)
    assert install.last_error(f"WARNING: x\n{said}\n") == said


def test_the_best_setting_of_each_way_is_chosen() -> None:
    measured = {
        target("a"): {"requests_per_s": 1.0},
        target("b"): {"requests_per_s": 3.0},
        target("c"): None,
        target("d", "other"): {"requests_per_s": 2.0},
    }

    chosen = summary.best(measured, lambda result: result["requests_per_s"])

    assert [t.setting for t in chosen] == ["b", "d"]


def test_python_phases_are_compared_within_their_round() -> None:
    def phase(p50: float) -> dict:
        return {"p50_us": p50, "requests": 1}

    merged = summary.merge_phases(
        [phase(20.0), phase(60.0), phase(30.0)], [phase(10.0), phase(20.0), phase(30.0)]
    )

    assert merged["paired_p50_ratio"] == {"median": 2.0, "rounds": 3}
    assert merged["requests"] == 3


def test_the_plan_measures_what_its_later_parts_build_on() -> None:
    for form in (SHORT, FULL):
        seen = set()
        for work in plan(form, None):
            if isinstance(work, Open):
                assert work.capacity_of in seen
            assert work.id not in seen
            seen.add(work.id)
        assert any(isinstance(work, Python) for work in plan(form, None))


def test_images_of_the_command_line_reach_the_plan() -> None:
    titles = [work.title for work in plan(SHORT, 32000) if work.id.startswith("resnet50")]

    assert titles == ["ResNet50, batch 32, 32000 images", "ResNet50, batch 10, 32000 images"]


def test_adjoin_is_always_among_the_peers() -> None:
    assert roster.select("triton, mosec") == ("adjoin", "triton", "mosec")
    with pytest.raises(Problem, match="no peer is called x"):
        roster.select("x")


def start(source: str, tmp_path: Path) -> Server:
    return Server("server", [sys.executable, "-c", source], MARK, tmp_path / "log")


def test_stopping_ends_a_server_that_does_not_listen_and_its_children(tmp_path: Path) -> None:
    server = start(
        "import os, time\nos.fork()\nprint('up', flush=True)\ntime.sleep(600)\n", tmp_path
    )
    server.wait_ready(lambda: server.log.read_text().count("up") == 2, 30)
    assert len(marked(MARK)) == 2

    server.stop()

    # What was killed is still listed for a moment.
    end = time.monotonic() + 10
    while marked(MARK) and time.monotonic() < end:
        time.sleep(0.01)
    assert not marked(MARK)


def test_a_server_that_ends_by_itself_is_reported_with_its_last_words(tmp_path: Path) -> None:
    server = start("raise SystemExit('no such model')", tmp_path)

    with pytest.raises(Unavailable, match=r"server ended \(1\): no such model"):
        server.wait_ready(lambda: False, 30)


def test_a_paused_server_uses_no_processor_time_and_can_be_stopped(tmp_path: Path) -> None:
    server = start("print('up', flush=True)\nwhile True: pass\n", tmp_path)
    server.wait_ready(lambda: "up" in server.log.read_text(), 30)

    server.pause()
    # What was under way when the signal came.
    time.sleep(0.1)
    before = server.processor_s()
    time.sleep(0.3)
    assert server.processor_s() == before

    server.stop()
    assert not server.running()


def document(partial: bool) -> dict:
    result = {"p50_us": 10.0, "requests_per_s": 5.0, "client_cpu_us_per_request": 1.0}
    place = {"workload": "mlp 1", "way": "", "setting": ""}
    return {
        "partial": partial,
        "date": "2026-01-02",
        "command": "bench-peers run",
        "commit": "abc",
        "machine": {
            "processor": "P",
            "cores": 2,
            "memory_gib": 4,
            "kernel": "Linux",
            "python": "3.11",
        },
        "settings": {"threads": 1, "engine": "onnxruntime 1", "images": 64},
        "peers": [
            {
                "name": "mosec",
                "title": "MOSEC",
                "version": "1",
                "state": "unavailable",
                "reason": "no wheel",
                "settings": [],
                "idle_processor_share": {},
            }
        ],
        "rows": [
            {**place, "peer": "in-process", "result": result},
            {**place, "peer": "mosec", "error": "it crashed"},
        ],
    }


def test_tables_say_what_is_partial_what_failed_and_what_was_left_out() -> None:
    text = tables.markdown(document(partial=True), [])

    assert "**Partial" in text
    assert "| MOSEC | – [1] |" in text
    assert "1. it crashed" in text
    assert "| MOSEC | 1 | unavailable: no wheel |" in text
    assert "**Partial" not in tables.markdown(document(partial=False), [])


def test_tables_say_that_the_machine_was_not_quiet() -> None:
    busy = document(partial=False)
    assert "not quiet" not in tables.markdown(busy, [])

    busy["rows"][0]["result"]["other_processes_share"] = 0.42

    assert "others took up to 42% of it" in tables.markdown(busy, [])


@pytest.mark.parametrize(
    ("us", "shown"),
    [(3.44, "3.4 µs"), (144.4, "144 µs"), (14_641, "14.6 ms"), (794_854, "795 ms")],
)
def test_times_are_shown_in_the_unit_that_reads_best(us: float, shown: str) -> None:
    assert tables.time(us) == shown


def test_an_old_python_is_refused_in_one_line() -> None:
    source = (PACKAGE / "__main__.py").read_text()
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.version_info = (3, 9, 2)\n{source}"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr == (
        "bench-peers: needs Python 3.11 or later, and this is 3.9.2; say PYTHON=python3.11\n"
    )
