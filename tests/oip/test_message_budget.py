"""What all calls together may send: a limit of one message is none of the server."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import urllib.request
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from conftest import Api, make_api
from test_hostile import DATA, END_HEADERS, HEADERS, Http2, frame, headers
from tritonclient.utils import InferenceServerException

from server import EVERYTHING, Server, wait_for

BUDGET = 3 << 20
# Two inputs of half as much each: two such messages do not fit.
ROWS = (2 << 20) // 2 // 16
HELD_BYTES = 2 << 20


@pytest.fixture(scope="module")
def narrow() -> Iterator[Server]:
    server = Server(config=f"{EVERYTHING}\n[limits]\nmessage_bytes = {BUDGET}\n")
    yield server
    assert server.is_running(), f"the server did not survive its tests:\n{server.log}"
    server.stop()


@pytest.fixture(params=["grpc", "http"])
def api(request: pytest.FixtureRequest, narrow: Server) -> Iterator[Api]:
    api = make_api(narrow, request.param)
    yield api
    api.client.close()


def is_added(api: Api, rows: int, **options: object) -> bool:
    """Whether the call is answered; a refusal must be for want of room."""
    values = np.arange(4 * rows, dtype=np.float32).reshape(rows, 4)
    try:
        result = api.infer("add", {"a": values, "b": values}, **options)
    except InferenceServerException as error:
        assert "limits.message_bytes" in error.message(), error
        if api.is_grpc:
            assert error.status() == "StatusCode.RESOURCE_EXHAUSTED"
        return False
    assert np.array_equal(result.as_numpy("sum"), values + values)
    return True


def held_bytes(server: Server) -> int:
    with urllib.request.urlopen(server.metrics) as page:
        lines = page.read().decode().splitlines()
    (line,) = [line for line in lines if line.startswith("adjoin_message_bytes ")]
    return int(line.split()[1])


@contextlib.contextmanager
def half_a_grpc_message(server: Server) -> Iterator[None]:
    """A call that stops in the middle of its message."""
    connection = Http2(server.grpc)
    sent = frame(HEADERS, END_HEADERS, 1, headers())
    body = b"\0" + struct.pack(">I", 2 * HELD_BYTES) + bytes(HELD_BYTES)
    for start in range(0, len(body), 1 << 14):
        sent += frame(DATA, 0, 1, body[start : start + (1 << 14)])
    connection.socket.sendall(sent)
    yield
    connection.close()


@contextlib.contextmanager
def half_an_http_body(server: Server) -> Iterator[None]:
    """The same over HTTP."""
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = "POST /v2/models/add/infer HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Length: {2 * HELD_BYTES}\r\n\r\n"
        connection.sendall(head.encode() + bytes(HELD_BYTES))
        yield


@pytest.mark.parametrize("held", [half_a_grpc_message, half_an_http_body])
def test_what_others_are_sending_counts_until_they_are_gone(
    narrow: Server, api: Api, held: Callable[[Server], contextlib.AbstractContextManager[None]]
) -> None:
    wait_for("there is room", lambda: is_added(api, ROWS))
    wait_for("nothing is held", lambda: held_bytes(narrow) == 0)
    with held(narrow):
        wait_for("half a message is held", lambda: held_bytes(narrow) >= HELD_BYTES)
        assert not is_added(api, ROWS)
        assert is_added(api, 1)
    wait_for("there is room again", lambda: is_added(api, ROWS))


def test_a_compressed_message_counts_as_what_it_unfolds_to(api: Api) -> None:
    rows = BUDGET // 2 // 16 + 1
    name = "compression_algorithm" if api.is_grpc else "request_compression_algorithm"
    zeros = np.zeros((rows, 4), np.float32)
    with pytest.raises(InferenceServerException, match=r"limits\.message_bytes"):
        api.infer("add", {"a": zeros, "b": zeros}, **{name: "gzip"})
    assert is_added(api, ROWS, **{name: "gzip"})


def test_a_stream_may_send_more_than_fits_at_once(narrow: Server) -> None:
    answers: queue.Queue = queue.Queue()
    values = np.ones((ROWS, 4), np.float32)
    inputs = [grpcclient.InferInput(name, [ROWS, 4], "FP32") for name in ("a", "b")]
    for each in inputs:
        each.set_data_from_numpy(values)
    with grpcclient.InferenceServerClient(narrow.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for _ in range(5):
            client.async_stream_infer("add", inputs)
            result, error = answers.get(timeout=120)
            assert error is None, error
            assert np.array_equal(result.as_numpy("sum"), values + values)
