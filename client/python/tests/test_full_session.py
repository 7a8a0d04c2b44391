"""A session without free places or memory: calls wait for some, no longer than they were told."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import adjoin
import numpy as np
import pytest
from conftest import Server, wait_for

ONES = np.ones((1, 4), np.float32)


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """The server does nothing meanwhile."""
    os.kill(server.process.pid, signal.SIGSTOP)
    threads = Path(f"/proc/{server.process.pid}/task")

    def are_stopped() -> bool:
        states = [
            thread.read_text().rpartition(")")[2].split()[0] for thread in threads.glob("*/stat")
        ]
        return set(states) == {"T"}

    try:
        wait_for("all threads of the server stand still", are_stopped)
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


@pytest.mark.parametrize("are_kept", [True, False], ids=["kept", "dropped"])
def test_no_place_until_the_time_is_up(make_server, are_kept: bool) -> None:
    server = make_server(["add"])
    with server.client(ring_entries=8) as client:
        model = client.model("add")

        async def main() -> None:
            for times in ({"timeout": 0.01}, {"deadline": 0.01}, {"timeout": 9, "deadline": 0.01}):
                with pytest.raises(adjoin.DeadlineExceeded, match="no room.*0.01"):
                    await model.infer_async(a=ONES, b=ONES, **times)

        with stopped(server):
            futures = [model.submit(a=ONES, b=ONES) for _ in range(8)]
            if not are_kept:
                futures.clear()
            for times in ({"timeout": 0.01}, {"deadline": 0.01}, {"timeout": 9, "deadline": 0.01}):
                with pytest.raises(adjoin.DeadlineExceeded, match="no room.*10ms") as caught:
                    model(a=ONES, b=ONES, **times)
                assert caught.value.retryable and not caught.value.may_have_run
            with pytest.raises(adjoin.DeadlineExceeded, match="no room"):
                model.submit(a=ONES, b=ONES, deadline=0.01)
            asyncio.run(main())
        assert (model(a=ONES, b=ONES)["sum"] == 2).all()
        assert all((future.result()["sum"] == 2).all() for future in futures)


def test_no_memory_until_the_time_is_up(make_server) -> None:
    server = make_server(["add"], "[models.add]\nmax_batch_size = 65536\n")
    rows = np.ones((5000, 4), np.float32)
    with server.client(request_bytes=1 << 18) as client:
        model = client.model("add")

        async def main() -> None:
            with pytest.raises(adjoin.DeadlineExceeded, match="no room"):
                await model.infer_async(a=rows, b=rows, timeout=0.01)

        with stopped(server):
            future = model.submit(a=rows, b=rows)
            with pytest.raises(adjoin.DeadlineExceeded, match="no room"):
                model(a=rows, b=rows, timeout=0.01)
            asyncio.run(main())
        assert (model(a=rows, b=rows, timeout=60)["sum"] == 2).all()
        assert (future.result()["sum"] == 2).all()


def test_run_without_room_for_its_outputs_is_waited_for_no_longer_than_told(make_server) -> None:
    server = make_server(["add", "slow"], "[models.add]\nmax_batch_size = 65536\n")
    rows, x = np.ones((4096, 4), np.float32), np.ones((32, 64), np.float32)
    with server.client(request_bytes=2 << 20, response_bytes=1 << 18) as client:
        kept = []
        for _ in range(3):
            request = client.model("add").request(batch=4096)
            request["a"], request["b"] = rows, rows
            kept.append(request.infer()["sum"])
        running = [client.model("slow").submit(x=x) for _ in range(5)]
        future = client.model("add").submit(a=rows, b=rows)
        # Until it was answered that there is no room: after that it waits for the others.
        time.sleep(0.05)
        assert not future.done()
        with stopped(server), pytest.raises(adjoin.DeadlineExceeded, match="within 10ms"):
            future.result(timeout=0.01)
        kept.clear()
        del request
        assert (future.result()["sum"] == 2).all()
        assert all((other.result()["y"] == -1).all() for other in running)


def test_submit_waits_for_the_places_of_dropped_futures(shared_server: Server) -> None:
    with shared_server.client(ring_entries=8) as client:
        slow, add = client.model("slow"), client.model("add")
        x = np.ones((32, 64), np.float32)
        for _ in range(3):
            for _ in range(8):
                slow.submit(x=x)
            assert (add.submit(a=ONES, b=ONES).result()["sum"] == 2).all()

        async def main() -> None:
            for _ in range(8):
                slow.submit(x=x)
            assert ((await add.infer_async(a=ONES, b=ONES))["sum"] == 2).all()

        asyncio.run(main())


def test_memory_of_dropped_futures_comes_back(shared_server: Server) -> None:
    with shared_server.client(request_bytes=1 << 17) as client:
        slow = client.model("slow")
        x = np.ones((32, 64), np.float32)

        async def main() -> None:
            assert ((await slow.infer_async(x=x))["y"] == -1).all()

        for _ in range(2):
            for _ in range(30):
                slow.submit(x=x)
            assert (slow(x=x)["y"] == -1).all()
            for _ in range(30):
                slow.submit(x=x)
            asyncio.run(main())


def given_up(request: adjoin.Request, how: str) -> Callable[[], object]:
    async def time_out() -> None:
        await request.infer_async(timeout=0.001)

    async def cancel() -> None:
        task = asyncio.create_task(request.infer_async())
        await asyncio.sleep(0.001)
        task.cancel()
        await task

    return {"timeout": time_out, "cancel": cancel}[how]


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_request_that_was_given_up_can_be_used_at_once(make_server, how: str) -> None:
    server = make_server(["slow"])
    with server.client() as client:
        request = client.model("slow").request(batch=32)
        request["x"][:] = 3

        async def main() -> None:
            with stopped(server):
                with pytest.raises((adjoin.DeadlineExceeded, asyncio.CancelledError)) as caught:
                    await given_up(request, how)()
                # The exception has the frames that had the future.
                assert caught.value.__traceback__ is not None
                request["x"][:] = 4
            assert ((await request.infer_async())["y"] == -4).all()
            assert (request.infer()["y"] == -4).all()

        asyncio.run(main())
