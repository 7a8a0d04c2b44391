"""Callers that mean harm, on bare sockets: what they cost the server, and that it goes on."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
import struct
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from conftest import Api

from server import Server

INFER = "/inference.GRPCInferenceService/ModelInfer"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_STREAM, END_HEADERS, ACK = 1, 4, 1
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4
CANCEL = 8
# What a request of this server may take of its memory at most, when it is refused.
REFUSED_BYTES_MAX = 128 << 20


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(*more: tuple[str, str]) -> bytes:
    """A header block in which every field is spelled out."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", INFER),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    ]
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields
    )


class Http2:
    """A connection that sends frames as they are told."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self.rest = b""
        window = struct.pack(">HI", INITIAL_WINDOW_SIZE, (1 << 31) - 1)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, window))
        _, _, _, settings = next(each for each in self.frames() if each[:2] == (SETTINGS, 0))
        self.settings = dict(struct.iter_unpack(">HI", settings))
        self.socket.sendall(frame(SETTINGS, ACK, 0))

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """What comes, until the end of the connection."""
        while True:
            while len(self.rest) >= 9:
                length = int.from_bytes(self.rest[:3], "big")
                if len(self.rest) < 9 + length:
                    break
                kind, flags, stream = struct.unpack(">BBI", self.rest[3:9])
                payload, self.rest = self.rest[9 : 9 + length], self.rest[9 + length :]
                yield kind, flags, stream, payload
            received = self.socket.recv(1 << 16)
            if not received:
                return
            self.rest += received

    def infer(self, message: bytes, stream: int = 1) -> bytes:
        """Sends a compressed message; the header block in which its answer ends."""
        packed = gzip.compress(message, 1)
        body = b"\1" + struct.pack(">I", len(packed)) + packed
        sent = frame(HEADERS, END_HEADERS, stream, headers(("grpc-encoding", "gzip")))
        for start in range(0, len(body), 1 << 14):
            part = body[start : start + (1 << 14)]
            is_last = start + len(part) == len(body)
            sent += frame(DATA, END_STREAM if is_last else 0, stream, part)
        self.socket.sendall(sent)
        for kind, flags, of, payload in self.frames():
            assert (kind, of) != (RST_STREAM, stream), payload
            if of == stream and flags & END_STREAM:
                return payload
        pytest.fail("the connection ended before the answer")

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def hostile(server: Server) -> Iterator[Http2]:
    connection = Http2(server.grpc)
    yield connection
    connection.close()


def delimited(field: int, payload: bytes) -> bytes:
    length, encoded = len(payload), b""
    while length >= 0x80:
        encoded += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([field << 3 | 2]) + encoded + bytes([length]) + payload


def empty_inputs() -> bytes:
    return b"\x2a\x00" * (4 << 20)


def empty_outputs() -> bytes:
    return b"\x32\x00" * (8 << 20)


def empty_raw_contents() -> bytes:
    return b"\x3a\x00" * (16 << 20)


def long_shape() -> bytes:
    return delimited(5, delimited(3, b"\1" * (64 << 20)))


def empty_strings() -> bytes:
    return delimited(5, delimited(5, b"\x42\x00" * (16 << 20)))


def small_integers() -> bytes:
    return delimited(5, delimited(5, delimited(3, b"\1" * (64 << 20))))


@pytest.mark.parametrize(
    "message",
    [empty_inputs, empty_outputs, empty_raw_contents, long_shape, empty_strings, small_integers],
)
def test_messages_that_would_unfold_in_memory_are_refused_before(
    server: Server, hostile: Http2, message: Callable[[], bytes]
) -> None:
    request = message()
    server.forget_peak()
    before = server.memory_bytes("VmRSS")
    hostile.infer(request)
    # The message itself is decompressed, in a buffer that doubles as it grows.
    grown = server.memory_bytes("VmHWM") - before
    assert grown < 3 * len(request) + REFUSED_BYTES_MAX


def test_strings_are_counted_without_a_list_of_them(server: Server, hostile: Http2) -> None:
    count = 16 << 20
    shape = b"\x80\x80\x80\x08\x01"
    tensor = delimited(1, b"x") + delimited(2, b"BYTES") + delimited(3, shape)
    request = delimited(1, b"none") + delimited(5, tensor) + delimited(7, bytes(4 * count))
    server.forget_peak()
    before = server.memory_bytes("VmRSS")
    hostile.infer(request)
    grown = server.memory_bytes("VmHWM") - before
    assert grown < 3 * len(request) + REFUSED_BYTES_MAX


@pytest.mark.parametrize(
    "body",
    [
        b'{"parameters": {"a": [' + b"[0]," * (8 << 20) + b"0]}, " + b'"inputs": []}',
        b'{"inputs": [{"name": "a", "datatype": "FP32", "shape": [' + b"1," * (16 << 20) + b"1]}]}",
        b'{"outputs": [' + b'{"name":""},' * (4 << 20) + b'{"name": ""}], "inputs": []}',
    ],
    ids=["parameters", "shape", "outputs"],
)
def test_json_that_would_unfold_in_memory_is_refused_before(server: Server, body: bytes) -> None:
    connection = http.client.HTTPConnection(server.http, timeout=60)
    server.forget_peak()
    before = server.memory_bytes("VmRSS")
    packed = gzip.compress(body, 1)
    connection.request("POST", "/v2/models/add/infer", packed, {"Content-Encoding": "gzip"})
    assert connection.getresponse().status == 400
    grown = server.memory_bytes("VmHWM") - before
    assert grown < 3 * len(body) + REFUSED_BYTES_MAX
    connection.close()


def test_calls_that_are_open_at_once_are_limited(
    server: Server, hostile: Http2, grpc_api: Api
) -> None:
    most = hostile.settings[MAX_CONCURRENT_STREAMS]
    assert most <= 1024
    block = headers()
    for number in range(most + 1):
        hostile.socket.sendall(frame(HEADERS, END_HEADERS, 2 * number + 1, block))
    refused = next(each for each in hostile.frames() if each[0] == RST_STREAM)
    assert refused[2] == 2 * most + 1
    ones = np.ones((1, 4), np.float32)
    result = grpc_api.infer("add", {"a": ones, "b": ones})
    assert np.array_equal(result.as_numpy("sum"), ones + ones)


def test_streams_that_are_reset_as_they_begin_end_the_connection_and_fill_no_log(
    server: Server, grpc_api: Api
) -> None:
    lines = len(server.log.splitlines())
    for _ in range(20):
        connection = Http2(server.grpc)
        block = headers()
        reset = struct.pack(">I", CANCEL)
        # Ended by the server before all is sent.
        with contextlib.suppress(ConnectionError):
            for number in range(5000):
                stream = 2 * number + 1
                connection.socket.sendall(
                    frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, reset)
                )
            list(connection.frames())
        connection.close()
    ones = np.ones((1, 4), np.float32)
    result = grpc_api.infer("add", {"a": ones, "b": ones})
    assert np.array_equal(result.as_numpy("sum"), ones + ones)
    assert len(server.log.splitlines()) - lines < 20


def test_http_means_http_1(server: Server) -> None:
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
        answer = b""
        with contextlib.suppress(ConnectionError):
            while received := connection.recv(4096):
                answer += received
    # A server of HTTP/2 would answer with its settings.
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
