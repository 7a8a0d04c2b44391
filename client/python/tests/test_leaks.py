"""Nothing grows: descriptors, mappings, memory."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref

import adjoin
import numpy as np
import pytest
from conftest import Server

RUNS = 100_000
ONES = np.ones((1, 4), np.float32)


def footprint() -> tuple[int, int, int]:
    """Descriptors, mappings of shared memory, KiB of private memory."""
    gc.collect()
    with open("/proc/self/maps") as maps:
        mappings = sum("adjoin-re" in line for line in maps)
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return len(os.listdir("/proc/self/fd")), mappings, int(lines["RssAnon"].split()[0])


def use(client: adjoin.Client, runs: int) -> None:
    model = client.model("add")
    request = model.request()
    output = None
    for run in range(runs // 4):
        request["a"][:] = run
        with request.infer() as result:
            output = result["sum"]
    for _ in range(runs // 4):
        model(a=ONES, b=ONES)
    for _ in range(runs // 4 // 50):
        futures = [model.submit(a=ONES, b=ONES) for _ in range(50)]
        for future in futures[:-5]:
            future.result()
    for _ in range(runs // 4 // 50):
        with request.infer() as result:
            np.from_dlpack(result["sum"])
        with model.request(batch=3) as other, other.infer():
            pass

    async def task(count: int) -> None:
        for _ in range(count):
            await model.infer_async(a=ONES, b=ONES)

    async def main() -> None:
        await asyncio.gather(*[task(runs // 4 // 16) for _ in range(16)])

    asyncio.run(main())
    assert output is not None


def test_footprint_is_flat_over_many_requests(client: adjoin.Client) -> None:
    use(client, RUNS // 10)
    fds, mappings, rss = footprint()
    use(client, RUNS)
    after_fds, after_mappings, after_rss = footprint()
    assert (after_fds, after_mappings) == (fds, mappings)
    # Caches of the interpreter settle within some hundred KiB; a leak of 16 bytes a request shows.
    assert after_rss - rss < 1500, f"{rss} KiB, then {after_rss} KiB"


def test_sessions_leave_nothing_behind(shared_server: Server) -> None:
    def connect(count: int) -> None:
        for _ in range(count):
            with shared_server.client(request_bytes=1 << 18, response_bytes=1 << 18) as client:
                model = client.model("add")
                model(a=ONES, b=ONES)
                request = model.request()
                request.infer()["sum"]

    connect(20)
    fds, mappings, rss = footprint()
    connect(300)
    after_fds, after_mappings, after_rss = footprint()
    assert (after_fds, after_mappings) == (fds, mappings)
    assert after_rss - rss < 1500, f"{rss} KiB, then {after_rss} KiB"


class Canary:
    """Something that a frame has."""


def test_failed_runs_leave_nothing_behind(shared_server: Server) -> None:
    """A future does not keep the frame that saw it fail, and with that itself and its request."""
    canaries: list[weakref.ref[Canary]] = []
    with shared_server.client(request_bytes=1 << 20) as client:
        model = client.model("slow")
        x = np.ones((32, 64), np.float32)

        def plant() -> Canary:
            canary = Canary()
            canaries.append(weakref.ref(canary))
            return canary

        def by_result() -> None:
            canary = plant()
            request = model.request(batch=32)
            future = request.submit(deadline=0)
            with pytest.raises(adjoin.DeadlineExceeded):
                future.result()
            with pytest.raises(adjoin.DeadlineExceeded):
                raise future.exception()
            assert canary is not None

        async def by_await() -> None:
            canary = plant()
            request = model.request(batch=32)
            future = request.submit(deadline=0)
            with pytest.raises(adjoin.DeadlineExceeded):
                await future
            with pytest.raises(adjoin.DeadlineExceeded):
                await request.infer_async(deadline=0)
            with pytest.raises(adjoin.DeadlineExceeded):
                await model.infer_async(x=x, timeout=0)
            assert canary is not None

        async def main() -> None:
            for _ in range(150):
                await by_await()

        # More than the session has room for at one time.
        for _ in range(150):
            by_result()
        asyncio.run(main())
    gc.collect()
    assert len(canaries) == 300 and not any(canary() for canary in canaries)
