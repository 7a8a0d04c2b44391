"""What a person meets who starts the command: one line for what is wrong, nothing left behind."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable

import pytest

from conftest import Bench
from peers import processes
from peers.lock import exclusive
from peers.workloads import SHORT, plan


def one_line(done: subprocess.CompletedProcess) -> str:
    """The only line on standard error."""
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("bench-peers: ")
    return lines[0]


def nothing_left(mark: str) -> bool:
    folders = processes.scratch(mark).parent.glob(f"adjoin-peers-{mark}*")
    return not processes.marked(mark) and not processes.segments(mark) and not [*folders]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited for a minute"
        time.sleep(0.02)


def test_a_run_writes_results_and_tables(bench: Bench) -> None:
    done = bench.run("--peers", "adjoin")

    assert done.returncode == 0, done.stderr
    assert bench.journal()["partial"] is False
    table = (bench.out / "peers.md").read_text()
    assert "adjoin (shared memory)" in table
    assert "Partial" not in table
    # The pretended wheel is not there, and that is said.
    assert "no wheel of the adjoin package was given" in table


def test_peers_that_were_not_asked_for_are_listed(bench: Bench) -> None:
    done = bench.run("--peers", "adjoin")

    assert done.returncode == 0, done.stderr
    states = {peer["name"]: peer["state"] for peer in bench.journal()["peers"]}
    assert states["mosec"] == "not asked for"
    assert "| MOSEC | 0.9.8 | not asked for |" in (bench.out / "peers.md").read_text()


def test_a_peer_that_cannot_be_had_is_listed_with_the_reason(bench: Bench) -> None:
    done = bench.run("--peers", "torchserve", PATH=str(bench.folder))

    assert done.returncode == 0, done.stderr
    states = {peer["name"]: (peer["state"], peer["reason"]) for peer in bench.journal()["peers"]}
    assert states["torchserve"] == (
        "unavailable",
        "it needs Java 17 or later, and there is no `java`",
    )
    assert "unavailable: it needs Java 17" in (bench.out / "peers.md").read_text()


def test_an_occupied_port_is_named(bench: Bench) -> None:
    port = bench.base_port + 3
    with socket.create_server(("127.0.0.1", port)):
        line = one_line(bench.run("--peers", "adjoin"))

    assert f"port {port} of 127.0.0.1 cannot be used" in line
    assert "--base-port" in line


def test_without_a_network_it_says_so_and_leaves_nothing(bench: Bench) -> None:
    # A port that nobody listens on: connections to it are refused at once.
    closed = f"http://127.0.0.1:{bench.base_port + 99}/simple"
    done = bench.run(
        "--peers", "mosec", PIP_INDEX_URL=closed, PIP_FIND_LINKS="", PIP_EXTRA_INDEX_URL=""
    )

    assert "pip reaches no package index to install mosec" in one_line(done)
    assert nothing_left(processes.folder_mark(bench.layout.home))
    assert not bench.layout.run.exists()


def test_a_missing_program_is_named_with_its_remedy(bench: Bench) -> None:
    (bench.folder / "loadgen").unlink()

    line = one_line(bench.run("--peers", "adjoin"))

    assert str(bench.folder / "loadgen") in line
    assert "cargo build --release -p adjoin-loadgen" in line


def test_an_unknown_peer_is_named(bench: Bench) -> None:
    line = one_line(bench.run("--peers", "mosec,tritn"))

    assert "no peer is called tritn" in line


def test_two_runs_in_one_folder_are_refused(bench: Bench) -> None:
    with exclusive(bench.layout.lock):
        line = one_line(bench.run("--peers", "adjoin"))

    assert "another run (process " in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_and_marks_its_results(
    bench: Bench, number: signal.Signals
) -> None:
    calls = bench.folder / "calls"
    running = bench.begin("--peers", "adjoin", FAKE_HANGS_AT="3")
    wait_until(lambda: calls.exists() and len(bench.calls()) == 3)
    mark = processes.folder_mark(bench.layout.home)
    # The pretended server, its worker, and the load generator that hangs.
    assert len(processes.marked(mark)) == 3

    running.send_signal(number)
    _, said = running.communicate(timeout=60)

    assert running.returncode == 128 + number
    assert nothing_left(mark)
    assert not bench.layout.run.exists()
    assert bench.journal()["partial"] is True
    assert bench.journal()["rows"]
    assert "marked partial" in said
    # Published results are those of whole runs.
    assert not (bench.out / "peers.json").exists()


def test_a_resumed_run_measures_only_what_is_missing(bench: Bench) -> None:
    running = bench.begin("--peers", "adjoin", FAKE_HANGS_AT="3")
    wait_until(lambda: (bench.folder / "calls").exists() and len(bench.calls()) == 3)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    first_two = [call for call in bench.calls() if call[0] == "compare"][:2]

    done = bench.run("--peers", "adjoin", "--resume")

    assert done.returncode == 0, done.stderr
    later = bench.calls()[3:]
    assert not any(call in later for call in first_two)
    measured = {row["workload"] for row in bench.journal()["rows"]}
    assert measured == {work.id for work in plan(SHORT, None)}


def test_a_run_with_other_settings_is_not_resumed(bench: Bench) -> None:
    assert bench.run("--peers", "adjoin").returncode == 0

    line = one_line(bench.run("--peers", "adjoin", "--threads", "2", "--resume"))

    assert "had other settings (threads)" in line


def test_there_must_be_something_to_resume(bench: Bench) -> None:
    assert "no interrupted run to resume" in one_line(bench.run("--peers", "adjoin", "--resume"))


def test_what_a_killed_run_left_is_ended_by_the_next(bench: Bench) -> None:
    running = bench.begin("--peers", "adjoin", FAKE_HANGS_AT="1")
    wait_until(lambda: (bench.folder / "calls").exists())
    mark = processes.folder_mark(bench.layout.home)
    running.kill()
    running.wait()
    assert processes.marked(mark)
    assert processes.segments(mark)

    assert bench.run("--peers", "adjoin").returncode == 0

    assert nothing_left(mark)
