"""Awaiting runs on an event loop."""

from __future__ import annotations

import asyncio
import threading

import adjoin
import numpy as np
import pytest
from conftest import Server

ONES = np.ones((1, 4), np.float32)


def full(value: float) -> np.ndarray:
    return np.full((1, 4), value, np.float32)


def test_many_tasks_get_their_own_answers(client: adjoin.Client) -> None:
    model = client.model("add")

    async def task(number: int) -> None:
        for run in range(30):
            y = await model.infer_async(a=full(number), b=full(run))
            assert (y["sum"] == number + run).all()

    async def main() -> None:
        await asyncio.gather(*[task(number) for number in range(64)])

    before = threading.active_count()
    asyncio.run(main())
    assert threading.active_count() == before


def test_loop_sleeps_until_the_answer_is_there(client: adjoin.Client) -> None:
    model = client.model("slow")
    x = np.ones((32, 64), np.float32)

    async def main() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.005)
                turns += 1

        counting = asyncio.create_task(count())
        y = await model.infer_async(x=x)
        assert (y["y"] == -1).all()
        # Others run meanwhile.
        assert turns >= 2
        counting.cancel()

    asyncio.run(main())


def test_request_and_future_can_be_awaited(client: adjoin.Client) -> None:
    request = client.model("add").request()
    request["a"][:], request["b"][:] = 1, 2

    async def main() -> None:
        with await request.infer_async(timeout=60.0) as result:
            assert (result["sum"] == 3).all()
        future = request.submit()
        with await future as result:
            assert (result["sum"] == 3).all()
        with pytest.raises(adjoin.Released):
            (await future)["sum"]
        done = client.model("add").submit(a=ONES, b=ONES)
        done.result()
        assert ((await done)["sum"] == 2).all()

    asyncio.run(main())


def test_more_than_the_session_has_places_for(shared_server: Server) -> None:
    with shared_server.client(ring_entries=8, request_bytes=1 << 17) as client:
        model = client.model("add")

        async def main() -> None:
            runs = [model.infer_async(a=full(i), b=ONES) for i in range(300)]
            outputs = await asyncio.gather(*runs)
            assert [int(y["sum"][0, 0]) for y in outputs] == list(range(1, 301))

        asyncio.run(main())


def test_outputs_without_room_find_it(shared_server: Server) -> None:
    with shared_server.client(request_bytes=4 << 20, response_bytes=1 << 18) as client:
        model = client.model("add")
        ones = np.ones((4096, 4), np.float32)

        async def main() -> None:
            outputs = await asyncio.gather(
                *[model.infer_async(a=ones * i, b=ones) for i in range(20)]
            )
            assert [int(y["sum"][9, 0]) for y in outputs] == list(range(1, 21))

        asyncio.run(main())


def test_errors_are_raised_where_they_are_awaited(client: adjoin.Client) -> None:
    async def main() -> None:
        with pytest.raises(adjoin.ShapeMismatch):
            await client.model("add").infer_async(a=np.ones((1, 5), np.float32), b=ONES)
        table = np.zeros((8, 4), np.float32)
        with pytest.raises(adjoin.ExecutionFailed):
            await client.model("gather").infer_async(table=table, index=np.array([99], np.int64))
        with pytest.raises(adjoin.DeadlineExceeded):
            await client.model("slow").infer_async(x=np.ones((32, 64), np.float32), timeout=0.001)
        with pytest.raises(adjoin.DeadlineExceeded) as caught:
            busy = [client.model("slow").submit(x=np.ones((32, 64), np.float32)) for _ in range(2)]
            await client.model("slow").infer_async(x=np.ones((1, 64), np.float32), deadline=0.0001)
        assert caught.value.status in ("deadline_exceeded", "deadline_unreachable")
        for future in busy:
            await future

    asyncio.run(main())


def test_cancelled_task_cancels_its_run(client: adjoin.Client) -> None:
    model = client.model("slow")
    x = np.ones((32, 64), np.float32)

    async def main() -> None:
        tasks = [asyncio.create_task(model.infer_async(x=x)) for _ in range(4)]
        await asyncio.sleep(0)
        for task in tasks[1:]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert (outcomes[0]["y"] == -1).all()
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[1:])
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(model.infer_async(x=x), 0.001)
        assert ((await model.infer_async(x=x))["y"] == -1).all()

    asyncio.run(main())


def test_one_client_serves_loop_after_loop_and_several_at_once(client: adjoin.Client) -> None:
    model = client.model("add")

    async def run(count: int) -> None:
        for i in range(count):
            assert ((await model.infer_async(a=full(i), b=ONES))["sum"] == i + 1).all()

    for _ in range(3):
        asyncio.run(run(5))

    async def abandon() -> None:
        client.model("slow").infer_async(x=np.ones((32, 64), np.float32)).close()

    asyncio.run(abandon())
    failures: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(run(300))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(300):
        assert (model(a=full(i), b=ONES)["sum"] == i + 1).all()
    for thread in threads:
        thread.join()
    assert not failures


def test_future_that_a_thread_waits_for_can_be_awaited_too(client: adjoin.Client) -> None:
    future = client.model("slow").submit(x=np.ones((32, 64), np.float32))
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(future.result()))
    thread.start()

    async def main() -> None:
        await client.model("add").infer_async(a=ONES, b=ONES)
        assert ((await future)["y"] == -1).all()

    asyncio.run(main())
    thread.join()
    assert len(results) == 1


def test_death_of_the_server_wakes_all_tasks(make_server) -> None:
    server = make_server(["slow"])
    with server.client() as client:
        model = client.model("slow")
        x = np.ones((32, 64), np.float32)

        async def main() -> None:
            tasks = [asyncio.create_task(model.infer_async(x=x)) for _ in range(8)]
            await asyncio.sleep(0.02)
            server.kill()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            gone = [error for error in outcomes if isinstance(error, adjoin.ServerUnavailable)]
            assert gone and len(gone) + sum(isinstance(y, dict) for y in outcomes) == 8
            server.start()
            assert ((await model.infer_async(x=x))["y"] == -1).all()

        asyncio.run(main())


def test_closing_ends_what_is_awaited(shared_server: Server) -> None:
    async def main() -> None:
        client = shared_server.client()
        model = client.model("slow")
        x = np.ones((32, 64), np.float32)
        tasks = [asyncio.create_task(model.infer_async(x=x)) for _ in range(3)]
        await asyncio.sleep(0.001)
        client.close()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert any(isinstance(outcome, adjoin.Closed) for outcome in outcomes)

    asyncio.run(main())


def test_closed_client_leaves_the_loop(shared_server: Server) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(5):
            with shared_server.client(name="loop") as client:
                await client.model("add").infer_async(a=ONES, b=ONES)
            del client
        for _ in range(100):
            await asyncio.sleep(0.01)
            if shared_server.sessions("loop") == 0 and readers(loop) <= 1:
                return
        raise AssertionError(f"{readers(loop)} readers are left")

    asyncio.run(main())


def readers(loop: asyncio.AbstractEventLoop) -> int:
    """Descriptors that the loop watches, its own among them."""
    return len(loop._selector.get_map())  # type: ignore[attr-defined]
