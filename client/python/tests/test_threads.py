"""Threads that share a client."""

from __future__ import annotations

import threading
import time

import adjoin
import numpy as np
import pytest


def run_all(*works) -> None:
    failures: list[BaseException] = []

    def guarded(work) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_threads_share_client_and_model(client: adjoin.Client) -> None:
    model = client.model("add")

    def work(number: int) -> None:
        request = model.request()
        b = np.full((1, 4), number, np.float32)
        for run in range(200):
            request["a"][:] = run
            request["b"][:] = number
            with request.infer() as result:
                assert (result["sum"] == run + number).all()
            assert (model(a=b, b=b)["sum"] == 2 * number).all()

    run_all(*[lambda number=number: work(number) for number in range(6)])


def test_other_threads_run_while_one_waits(client: adjoin.Client) -> None:
    request = client.model("slow").request(batch=32)
    request["x"][:] = 1
    turns = 0
    done = threading.Event()

    def wait() -> None:
        request.infer().release()
        done.set()

    def count() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0)

    run_all(wait, count)
    # A wait that kept the interpreter would leave a handful.
    assert turns > 100


def test_several_threads_wait_for_one_future(client: adjoin.Client) -> None:
    future = client.model("slow").submit(x=np.ones((32, 64), np.float32))

    def wait() -> None:
        assert (future.result()["y"] == -1).all()

    def look() -> None:
        while not future.done():
            time.sleep(0.001)

    run_all(wait, wait, look, wait)


def test_request_in_use_by_another_thread_says_so(client: adjoin.Client) -> None:
    request = client.model("slow").request(batch=32)
    request["x"][:] = 1
    began = threading.Event()

    def run() -> None:
        began.set()
        request.infer().release()

    thread = threading.Thread(target=run)
    thread.start()
    began.wait()
    time.sleep(0.005)
    with pytest.raises(adjoin.RequestBusy, match="another thread"):
        while thread.is_alive():
            request["x"]
    thread.join()
    assert (request.infer()["y"] == -1).all()


def test_client_closed_under_a_waiting_thread(shared_server) -> None:
    client = shared_server.client()
    future = client.model("slow").submit(x=np.ones((32, 64), np.float32))
    outcomes: list[object] = []
    thread = threading.Thread(target=lambda: outcomes.append(future.result()))
    thread.start()
    time.sleep(0.005)
    client.close()
    thread.join()
    assert len(outcomes) == 1
