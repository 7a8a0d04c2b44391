"""Awaiting runs: the event loop watches one descriptor of each session, and no thread is taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from adjoin._adjoin import Future, Model, Watch
from adjoin.errors import DeadlineExceeded, Error

_SLEEP, _AGAIN, _LATER, _OVER = range(4)

_MOMENT = 0.001
"""Seconds to the next look at a run that a thread waits for, too."""

_WHILE = 0.05
"""Longest wait for a run of this loop before the next look whether others have given room."""


class _Driver:
    """Does the waiters of one session on one event loop.

    The server sends a packet for a completion only while the watch is armed, which it is before the
    loop would sleep. Under load a turn finds something each time, and runs again behind the tasks
    that it woke.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, watch: Watch) -> None:
        self._loop = loop
        self._watch = watch
        self._is_scheduled = False
        self._is_over = False
        self._turned: asyncio.Future[None] | None = None
        loop.add_reader(watch.fileno(), self._on_readable)

    def add(self, future: Future[Any], waiter: asyncio.Future[None]) -> bool:
        if self._is_over or not self._watch.add(future, waiter):
            return False
        self._schedule()
        return True

    @property
    def is_idle(self) -> bool:
        return len(self._watch) == 0

    @property
    def is_over(self) -> bool:
        return self._is_over

    def turned(self) -> asyncio.Future[None]:
        """Done when a run was."""
        if self._turned is None:
            self._turned = self._loop.create_future()
        return self._turned

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._on_turn)

    def _on_turn(self) -> None:
        self._is_scheduled = False
        self._do(self._watch.turn(False))

    def _on_readable(self) -> None:
        self._do(self._watch.turn(True))

    def _do(self, following: int) -> None:
        if following == _AGAIN:
            if self._turned is not None and not self._turned.done():
                self._turned.set_result(None)
            self._turned = None
            self._schedule()
        elif following == _LATER and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_later(_MOMENT, self._on_turn)
        elif following == _OVER:
            self._is_over = True
            self._loop.remove_reader(self._watch.fileno())


_drivers: dict[asyncio.AbstractEventLoop, list[_Driver]] = {}


def _wake(future: Future[Any], waiter: asyncio.Future[None]) -> None:
    """Has `waiter` done when the run is."""
    loop = asyncio.get_running_loop()
    drivers = _drivers.get(loop)
    if drivers is None:
        for closed in [other for other in _drivers if other.is_closed()]:
            del _drivers[closed]
        drivers = _drivers[loop] = []
    for driver in drivers:
        if driver.add(future, waiter):
            return
    watch = Watch.of(future)
    if watch is None:
        loop.call_soon(_retry, future, waiter)
        return
    drivers[:] = [driver for driver in drivers if not driver.is_over]
    driver = _Driver(loop, watch)
    drivers.append(driver)
    driver.add(future, waiter)


def _retry(future: Future[Any], waiter: asyncio.Future[None]) -> None:
    """For a run that is over, or that a thread waits for in a session without a driver here."""
    if waiter.done():
        return
    if future.done():
        waiter.set_result(None)
    else:
        asyncio.get_running_loop().call_later(_MOMENT, _wake, future, waiter)


async def wait(future: Future[Any]) -> Any:
    """The outcome of a run. Cancelling the wait leaves the run alone."""
    while not future.done():
        waiter = asyncio.get_running_loop().create_future()
        _wake(future, waiter)
        await waiter
    return future.result()


async def finish(
    future: Future[Any], timeout: float | None = None, whole: float | None = None
) -> Any:
    """The outcome of a run that nobody else has. Cancelling the wait cancels the run.

    `whole` is the caller's timeout, where `timeout` is what is left of it.
    """
    try:
        if timeout is None:
            return await wait(future)
        return await asyncio.wait_for(wait(future), timeout)
    except asyncio.CancelledError:
        future._abandon()
        raise
    except asyncio.TimeoutError as error:
        future._abandon()
        if isinstance(error, Error):
            raise
        waited = timeout if whole is None else whole
        raise DeadlineExceeded(f"no answer within {waited:g}s", may_have_run=True) from None


def retry(
    model: Model,
    inputs: Mapping[str, Any] | None,
    named: Mapping[str, Any] | None,
    timeout: float | None,
    deadline: float | None,
    options: dict[str, Any],
) -> Coroutine[Any, Any, Any]:
    """Runs a model for which there was no room, once other runs have given some.

    The times count from this call, however often it is tried.
    """
    called = time.monotonic()

    def rest(seconds: float | None) -> float | None:
        return None if seconds is None else max(0.0, called + seconds - time.monotonic())

    async def run() -> Any:
        begin = timeout if deadline is None else deadline
        patience = min((limit for limit in (timeout, begin) if limit is not None), default=None)
        while True:
            future = model._try_submit(inputs, named, deadline=rest(begin), **options)
            if future is not None:
                return await finish(future, rest(timeout), timeout)
            left = rest(patience)
            if left == 0:
                raise DeadlineExceeded(
                    f"no room in the session within {patience:g}s; earlier requests have it",
                    retryable=True,
                )
            await _turn(left)

    return run()


async def _turn(at_most: float | None) -> None:
    """Until a run was done on this loop, or for a while: places come back from elsewhere, too."""
    drivers = _drivers.get(asyncio.get_running_loop(), [])
    busy = [driver.turned() for driver in drivers if not driver.is_idle]
    span = _WHILE if busy else _MOMENT
    if at_most is not None:
        span = min(span, at_most)
    if busy:
        await asyncio.wait(busy, timeout=span, return_when=asyncio.FIRST_COMPLETED)
    else:
        await asyncio.sleep(span)
