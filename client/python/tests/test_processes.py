"""Other processes: forked, spawned, and interrupted ones."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable

import adjoin
import numpy as np
import pytest
from conftest import WATCHDOG_SECONDS, Server, run_python

ONES = np.ones((1, 4), np.float32)


def in_child(work: Callable[[], None]) -> None:
    """Runs `work` in a forked process; fails if that does."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_forked_child_is_told_so_and_old_views_do_not_crash(client: adjoin.Client) -> None:
    model = client.model("add")
    request, other = model.request(), model.request()
    a = request["a"]
    a[:] = 3
    result = request.infer()
    kept = result["sum"]
    future = other.submit()

    def child() -> None:
        for use in (
            request.infer,
            lambda: request["a"],
            lambda: model(a=ONES, b=ONES),
            lambda: model.submit(a=ONES, b=ONES),
            model.request,
            lambda: client.model("add"),
            lambda: result["sum"],
            future.result,
        ):
            with pytest.raises(adjoin.Forked, match="connect"):
                use()
        assert client.session_id == 0
        # Zeros of the child's own are there now.
        assert (kept == 0).all() and (a == 0).all()
        a[:] = 9
        assert (a == 9).all()
        client.close()

    in_child(child)
    assert (a == 3).all()
    assert kept.shape == (1, 4)
    a[:] = 1
    assert (request.infer()["sum"] == request["b"] + 1).all()
    future.result()


def test_forked_child_connects_by_itself(shared_server: Server, client: adjoin.Client) -> None:
    client.model("add")(a=ONES, b=ONES)

    def child() -> None:
        with shared_server.client() as own:
            for i in range(20):
                y = own.model("add")(a=ONES * i, b=ONES)
                assert (y["sum"] == i + 1).all()

    in_child(child)
    assert (client.model("add")(a=ONES, b=ONES)["sum"] == 2).all()


def test_child_that_ends_leaves_its_parents_session(shared_server: Server) -> None:
    source = """
import os, sys, adjoin, numpy as np
client = adjoin.connect(sys.argv[1])
model = client.model("add")
request = model.request()
ones = np.ones((1, 4), np.float32)
futures = [model.submit(a=ones, b=ones) for _ in range(8)]
if os.fork() == 0:
    sys.exit(0)  # with all finalizers
os.wait()
assert all((future.result()["sum"] == 2).all() for future in futures)
request["a"][:] = 4
request["b"][:] = 1
print(request.infer()["sum"][0, 0])
"""
    assert run_python(source, shared_server.socket_dir).split() == ["5.0"]


def work_in_pool(argument: tuple[str, int]) -> float:
    socket_dir, number = argument
    with adjoin.connect(socket_dir) as client:
        y = client.model("add")(a=ONES * number, b=ONES)
        return float(y["sum"][0, 0])


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_multiprocessing(shared_server: Server, method: str) -> None:
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        outputs = pool.map(work_in_pool, [(shared_server.socket_dir, i) for i in range(8)])
    assert outputs == [float(i + 1) for i in range(8)]


def test_outputs_travel_to_other_processes_as_copies(client: adjoin.Client) -> None:
    request = client.model("add").request()
    request["a"][:], request["b"][:] = 1, 2
    output = request.infer()["sum"]
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.apply(np.sum, (output,)) == 12


INTERRUPTED = """
import signal, sys, adjoin, numpy as np
# Whoever runs the tests in the background may have had the signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
client = adjoin.connect(sys.argv[1], answer_timeout=3600)
x = np.ones((32, 64), np.float32)
model = client.model("slow")
request = model.request(batch=32)
request["x"][:] = 1
waits = {
    "infer": lambda: request.infer(),
    "call": lambda: model(x=x),
    "future": lambda: model.submit(x=x).result(),
    "model": lambda: client.model("slow"),
    "connect": lambda: adjoin.connect(sys.argv[1], answer_timeout=3600),
}
wait = waits[sys.argv[2]]
print("ready", flush=True)
while True:
    try:
        while True:
            wait()
    except KeyboardInterrupt:
        break
request["x"][:] = 2
assert (request.infer()["y"] == -2).all()
print("interrupted")
"""


@pytest.mark.parametrize("wait", ["infer", "call", "future"])
def test_ctrl_c_interrupts_a_wait(shared_server: Server, wait: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, shared_server.socket_dir, wait]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=WATCHDOG_SECONDS)
    assert (printed, process.returncode) == ("interrupted\n", 0)


@pytest.mark.parametrize("wait", ["infer", "model", "connect"])
def test_wait_without_an_end_is_interrupted(make_server, wait: str) -> None:
    # A stopped server never answers.
    server = make_server(["slow"])
    command = [sys.executable, "-c", INTERRUPTED.replace("assert", "#"), server.socket_dir, wait]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=WATCHDOG_SECONDS)
    server.process.send_signal(signal.SIGCONT)
    assert (printed, process.returncode) == ("interrupted\n", 0)


def test_interpreter_ends_with_runs_under_way(shared_server: Server) -> None:
    source = """
import sys, adjoin, numpy as np
client = adjoin.connect(sys.argv[1])
model = client.model("slow")
request = model.request(batch=32)
x = request["x"]
futures = [model.submit(x=np.ones((32, 64), np.float32)) for _ in range(3)]
result = client.model("add").request().infer()
output = result["sum"]
pending = request.submit()
"""
    run_python(source, shared_server.socket_dir)
