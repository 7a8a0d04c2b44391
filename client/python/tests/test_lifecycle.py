"""Servers that go, deadlines that pass, requests that nobody wants any more."""

from __future__ import annotations

import time

import adjoin
import numpy as np
import pytest
from conftest import wait_for

ONES = np.ones((1, 4), np.float32)


def infer(request: adjoin.Request) -> adjoin.Result:
    """Runs a request, once more if a server that was killed had it."""
    try:
        return request.infer()
    except adjoin.ServerUnavailable as error:
        assert error.may_have_run
        return request.infer()


def slow_request(client: adjoin.Client, rows: int = 32) -> adjoin.Request:
    request = client.model("slow").request(batch=rows)
    request["x"][:] = 1
    return request


def test_killed_server_is_an_error_for_what_was_under_way(make_server) -> None:
    server = make_server(["slow", "add"])
    with server.client() as client:
        request, model = slow_request(client), client.model("add")
        future, quick = request.submit(), model.submit(a=ONES, b=ONES)
        quick.result()
        server.kill()
        with pytest.raises(adjoin.ServerUnavailable, match="may have run") as caught:
            future.result()
        assert caught.value.may_have_run
        for use in (request.infer, lambda: model(a=ONES, b=ONES), lambda: client.model("add")):
            with pytest.raises(adjoin.ServerUnavailable, match="adjoin serve"):
                use()
        # What was written is still there, and goes to the next server.
        request["x"][:] = 2
        server.start()
        with request.infer() as result:
            assert (result["y"] == -2).all()
        assert client.reconnects == 1
        assert (model(a=ONES, b=ONES)["sum"] == 2).all()


def test_array_that_a_program_keeps_is_good_for_all_servers(make_server) -> None:
    server = make_server(["add"])
    with server.client() as client:
        request = client.model("add").request()
        a = request["a"]
        request["b"][:] = 1
        for generation in range(3):
            for run in range(4):
                a[:] = 10 * generation + run
                with infer(request) as result:
                    assert (result["sum"] == 10 * generation + run + 1).all()
                if run == 2:
                    assert request["a"] is a
            server.kill()
            server.start()
        del a
        request["a"][:] = 50
        assert (infer(request)["sum"] == 51).all()


def test_outputs_outlive_a_killed_server(make_server) -> None:
    server = make_server(["add"])
    with server.client() as client:
        request = client.model("add").request()
        request["a"][:], request["b"][:] = 1, 2
        result = request.infer()
        before = result["sum"]
        server.kill()
        assert (before == 3).all()
        assert (result["sum"] == 3).all()


def test_orderly_end_and_restart_behind_an_idle_client(make_server) -> None:
    server = make_server(["add"])
    with server.client() as client:
        request = client.model("add").request()
        a, b = request["a"], request["b"]
        a[:], b[:] = 1, 2
        kept = request.infer()["sum"]
        server.end()
        a[:] = 5
        with pytest.raises(adjoin.ServerUnavailable):
            request.infer()
        server.start()
        assert (request.infer()["sum"] == 7).all()
        b[:] = 0
        assert (request.infer()["sum"] == 5).all()
        assert (kept == 3).all()


def test_patient_client_waits_for_the_next_server(make_server) -> None:
    server = make_server(["add"])
    with server.client(reconnect_timeout=60.0) as client:
        model = client.model("add")
        server.kill()
        import threading

        restart = threading.Timer(0.2, server.start)
        restart.start()
        assert (model(a=ONES, b=ONES)["sum"] == 2).all()
        restart.join()


def test_timeout_raises_and_the_request_is_usable_at_once(client: adjoin.Client) -> None:
    request = slow_request(client)
    x = request["x"]
    for value in (3, 4):
        x[:] = value
        with pytest.raises(adjoin.DeadlineExceeded) as caught:
            request.infer(timeout=0.001)
        assert isinstance(caught.value, TimeoutError)
    # The server may still read the earlier ones; this one is elsewhere.
    assert request["x"] is x
    with request.infer() as result:
        assert (result["y"] == -4).all()
    x[:] = 6
    assert (request.infer()["y"] == -6).all()
    with pytest.raises(adjoin.DeadlineExceeded, match="no answer within 0|deadline"):
        client.model("slow")(x=np.ones((32, 64), np.float32), timeout=0)


def test_deadline_is_the_servers(client: adjoin.Client) -> None:
    busy = [slow_request(client).submit() for _ in range(3)]
    request = client.model("slow").request()
    with pytest.raises(adjoin.DeadlineExceeded, match="deadline") as caught:
        request.infer(deadline=0.0001)
    assert caught.value.status in ("deadline_exceeded", "deadline_unreachable")
    for future in busy:
        future.result()


def test_wait_for_a_future_can_be_given_up_and_taken_up(client: adjoin.Client) -> None:
    future = slow_request(client).submit()
    with pytest.raises(adjoin.DeadlineExceeded, match="no answer within"):
        future.result(timeout=0)
    assert not future.done() and "under way" in repr(future)
    assert (future.result()["y"] == -1).all()


def test_cancelled_run_is_cancelled_or_done(client: adjoin.Client) -> None:
    busy = [slow_request(client).submit() for _ in range(4)]
    model = client.model("slow")
    future = model.submit(x=np.ones((1, 64), np.float32))
    assert future.cancel()
    with pytest.raises(adjoin.Cancelled):
        future.result()
    assert isinstance(future.exception(), adjoin.Cancelled)
    assert not future.cancel()
    for future in busy:
        future.result()


def test_run_of_what_is_closed_under_it_says_so(make_server) -> None:
    server = make_server(["slow"])
    with server.client() as client:
        request = slow_request(client)
        future = request.submit()
        request.close()
        with pytest.raises(adjoin.Released, match="request was closed"):
            future.result()
        futures = [client.model("slow").submit(x=np.ones((32, 64), np.float32)) for _ in range(3)]
    for future in futures:
        with pytest.raises(adjoin.Closed):
            future.result()
        assert future.done()


def test_dropped_future_frees_its_request(client: adjoin.Client) -> None:
    request = slow_request(client)
    future = request.submit()
    del future
    request["x"][:] = 5
    assert (request.infer()["y"] == -5).all()


def test_full_queue_is_an_error_that_may_pass(make_server) -> None:
    server = make_server(["slow"], "max_batch_size = 1\nqueue_limit = 2\n")
    with server.client() as client:
        model = client.model("slow")
        x = np.ones((1, 64), np.float32)
        futures = [model.submit(x=x) for _ in range(20)]
        outcomes = [future.exception() for future in futures]
        full = [error for error in outcomes if error is not None]
        assert full and all(type(error) is adjoin.QueueFull for error in full)
        assert all(error.retryable and "queue of model" in str(error) for error in full)
        assert any(error is None for error in outcomes)


def test_draining_server_executes_nothing_new(make_server) -> None:
    server = make_server(["slow", "add"])
    with server.client() as client:
        add = client.model("add").request()
        future = slow_request(client).submit()
        # Until the server has taken it: some hundred milliseconds of work.
        time.sleep(0.02)
        server.process.terminate()

        def is_refused() -> bool:
            try:
                add.infer().release()
            except (adjoin.NotExecuted, adjoin.ServerUnavailable) as error:
                return error.retryable
            return False

        wait_for("the server refuses", is_refused)
        assert (future.result()["y"] == -1).all()
        server.process.wait()


def test_engine_that_fails_is_an_error_of_that_request(client: adjoin.Client) -> None:
    table = np.zeros((8, 4), np.float32)
    model = client.model("gather")
    with pytest.raises(adjoin.ExecutionFailed, match="log"):
        model(table=table, index=np.array([99], np.int64))
    assert (model(table=table, index=np.array([7], np.int64))["rows"] == 0).all()


def test_death_is_noticed_while_idle_in_result(make_server) -> None:
    server = make_server(["slow"])
    with server.client(spin=0) as client:
        future = slow_request(client).submit()
        time.sleep(0.005)
        server.kill()
        assert isinstance(future.exception(timeout=30.0), adjoin.ServerUnavailable)
