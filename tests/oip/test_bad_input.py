"""Requests that no library would send.

Each gets the protocol's code and a text that says what was expected and what came, and the server
goes on.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import grpc
import numpy as np
import pytest
from conftest import Api
from tritonclient.grpc import service_pb2 as service
from tritonclient.grpc import service_pb2_grpc

from server import Server

ROW = np.arange(4, dtype=np.float32)
RAW = ROW.tobytes()

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, 400)
NOT_FOUND = (grpc.StatusCode.NOT_FOUND, 404)


@dataclass
class Tensor:
    """A tensor of a request in its binary form, which both transports have."""

    name: str
    shape: list[Any]
    datatype: str = "FP32"
    data: bytes = RAW


def add_tensors() -> list[Tensor]:
    return [Tensor("a", [1, 4]), Tensor("b", [1, 4])]


@dataclass
class Wire:
    """Sends requests without a client library between."""

    server: Server
    stub: service_pb2_grpc.GRPCInferenceServiceStub

    def grpc(self, request: service.ModelInferRequest) -> tuple[grpc.StatusCode, str]:
        try:
            self.stub.ModelInfer(request)
        except grpc.RpcError as error:
            return error.code(), error.details()
        return grpc.StatusCode.OK, ""

    def http(
        self,
        body: bytes,
        headers: dict[str, str] | None = None,
        path: str = "/v2/models/add/infer",
        method: str = "POST",
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.server.http, timeout=60)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status == 200:
            return 200, text.decode("latin1")
        assert answer.headers["content-type"] == "application/json", (answer.status, text)
        error = json.loads(text)
        assert list(error) == ["error"], error
        return answer.status, error["error"]

    def both(
        self,
        tensors: list[Tensor],
        model: str = "add",
        outputs: Sequence[str] = (),
        version: str = "",
        parameters: Mapping[str, Any] = MappingProxyType({}),
    ) -> Iterator[tuple[int, Any, str]]:
        """The same request over gRPC (0) and HTTP (1)."""
        request = service.ModelInferRequest(model_name=model, model_version=version)
        for name, value in parameters.items():
            if isinstance(value, str):
                request.parameters[name].string_param = value
            else:
                request.parameters[name].int64_param = value
        for tensor in tensors:
            request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            request.raw_input_contents.append(tensor.data)
        for name in outputs:
            request.outputs.add(name=name)
        yield 0, *self.grpc(request)
        head = {
            "inputs": [
                {
                    "name": tensor.name,
                    "datatype": tensor.datatype,
                    "shape": tensor.shape,
                    "parameters": {"binary_data_size": len(tensor.data)},
                }
                for tensor in tensors
            ],
            "parameters": dict(parameters),
        }
        if outputs:
            head["outputs"] = [{"name": name} for name in outputs]
        text = json.dumps(head).encode()
        body = text + b"".join(tensor.data for tensor in tensors)
        path = f"/v2/models/{quote(model, safe='')}"
        if version:
            path += f"/versions/{quote(version, safe='')}"
        headers = {"Inference-Header-Content-Length": str(len(text))}
        yield 1, *self.http(body, headers, f"{path}/infer")

    def refused(
        self, codes: tuple[Any, int], words: list[str], *arguments: Any, **options: Any
    ) -> None:
        for transport, code, text in self.both(*arguments, **options):
            assert code == codes[transport], (code, text)
            for word in words:
                assert word in text, (word, text)
            # A message of gRPC travels in a header.
            assert len(text) < 2000, len(text)
            assert "/models" not in text or "model" in words, text


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.grpc, options) as channel:
        wire = Wire(server, service_pb2_grpc.GRPCInferenceServiceStub(channel))
        yield wire
        # Whatever came before, the server goes on.
        for _, code, text in wire.both(add_tensors()):
            assert code in (grpc.StatusCode.OK, 200), text


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([-1, 4], ["a", "-1"]),
        ([1, -4], ["a", "-4"]),
        ([2**62, 4], ["a", str(2**62)]),
        ([2**32, 2**32], ["a", str(2**32)]),
        ([2**63 - 1, 2**63 - 1], ["a"]),
        ([-(2**63), 4], ["a"]),
        ([2**40, 4], ["a"]),
        ([2, 4], ["a", "32", "16"]),
        ([1, 5], ["a", "20", "16"]),
        ([4], ["a", "[4]"]),
        ([1] * 9, ["a", "9", "8"]),
        ([1] * 1000, ["a", "1000", "8"]),
        ([], ["a"]),
    ],
)
def test_shapes(wire: Wire, shape: list[int], words: list[str]) -> None:
    tensors = add_tensors()
    tensors[0].shape = shape
    wire.refused(INVALID, words, tensors)


@pytest.mark.parametrize("data", [b"", RAW[:-1], RAW + b"\0", RAW * 2, b"x"])
def test_bytes_that_do_not_match_the_shape(wire: Wire, data: bytes) -> None:
    tensors = add_tensors()
    tensors[1].data = data
    wire.refused(INVALID, ["'b'", "16", str(len(data))], tensors)


def test_rows_of_inputs_that_differ(wire: Wire) -> None:
    tensors = [Tensor("a", [1, 4]), Tensor("b", [2, 4], data=RAW * 2)]
    wire.refused(INVALID, ["b"], tensors)


@pytest.mark.parametrize(
    ("datatype", "data", "words"),
    [
        ("FP64", b"\0" * 32, ["a", "FP64", "FP32"]),
        ("INT32", RAW, ["a", "INT32", "FP32"]),
        ("BYTES", struct.pack("<I", 0) * 4, ["a", "BYTES", "FP32"]),
        ("FP31", RAW, ["a", "FP31", "FP32"]),
        ("fp32", RAW, ["a", "fp32"]),
        ("", RAW, ["a"]),
        ("X" * 5000, RAW, ["a"]),
    ],
)
def test_data_types(wire: Wire, datatype: str, data: bytes, words: list[str]) -> None:
    tensors = add_tensors()
    tensors[0].datatype, tensors[0].data = datatype, data
    wire.refused(INVALID, words, tensors)


def test_missing_unknown_and_duplicate_inputs(wire: Wire) -> None:
    wire.refused(INVALID, ["b"], [Tensor("a", [1, 4])])
    wire.refused(INVALID, [], [])
    wire.refused(INVALID, ["c"], [*add_tensors(), Tensor("c", [1, 4])])
    wire.refused(INVALID, ["a"], [*add_tensors(), Tensor("a", [1, 4])])
    wire.refused(INVALID, ["c"], [Tensor("a", [1, 4]), Tensor("c", [1, 4])])
    many = [Tensor(f"x{n}", [1, 4]) for n in range(1000)]
    wire.refused(INVALID, ["1000", "64"], many)


@pytest.mark.parametrize("name", ["../a", "a/b", "nul\0", "n" * 300, "", "ü"])
def test_names_of_inputs(wire: Wire, name: str) -> None:
    wire.refused(INVALID, [], [Tensor(name, [1, 4]), Tensor("b", [1, 4])])


def test_unknown_and_duplicate_outputs(wire: Wire) -> None:
    wire.refused(INVALID, ["nothing", "sum"], add_tensors(), outputs=["nothing"])
    wire.refused(INVALID, ["sum"], add_tensors(), outputs=["sum", "sum"])
    for name in ["../sum", "s/m", "nul\0", "n" * 300, ""]:
        wire.refused(INVALID, [], add_tensors(), outputs=[name])
    wire.refused(INVALID, ["1000", "64"], add_tensors(), outputs=[f"x{n}" for n in range(1000)])


@pytest.mark.parametrize("model", ["nothing", "../add", "a/b", "nul\0", "n" * 300, ".", "ü"])
def test_unknown_models(wire: Wire, model: str) -> None:
    for transport, code, text in wire.both(add_tensors(), model=model):
        assert code in (INVALID[transport], NOT_FOUND[transport]), (code, text)
        assert len(text) < 2000
    wire.refused(
        NOT_FOUND, ["Request for unknown model", "nothing"], add_tensors(), model="nothing"
    )


@pytest.mark.parametrize(
    "version", ["7", "0", "-2", "one two", "99999999999999999999", "v" * 300, "1.5"]
)
def test_unknown_versions(wire: Wire, version: str) -> None:
    for transport, code, text in wire.both(add_tensors(), version=version):
        assert code in (INVALID[transport], NOT_FOUND[transport]), (code, text)
        assert len(text) < 2000
        assert version[:7] in text, text


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<I", 2**32 - 1) + b"x",
        struct.pack("<I", 100) + b"x",
        struct.pack("<I", 0) + b"x",
        struct.pack("<I", 1) + b"xy",
        b"\1\0\0",
        b"",
        struct.pack("<I", 1) + b"x" + struct.pack("<I", 0),
    ],
)
def test_strings_with_lengths_that_lie(wire: Wire, data: bytes) -> None:
    good = struct.pack("<I", 1) + b"x"
    tensors = [Tensor("a", [1, 1], "BYTES", data), Tensor("b", [1, 1], "BYTES", good)]
    wire.refused(INVALID, ["'a'"], tensors, model="text")


def test_strings_that_are_claimed_by_the_billion(wire: Wire) -> None:
    tensors = [
        Tensor("a", [1, 2**40], "BYTES", b"\0\0\0\0"),
        Tensor("b", [1, 1], "BYTES", b"\0\0\0\0"),
    ]
    wire.refused(INVALID, ["'a'"], tensors, model="text")


def test_parameters_of_the_wrong_kind(wire: Wire) -> None:
    for parameters in [
        {"priority": -1},
        {"timeout": -5},
        {"timeout": "soon"},
        {"priority": "high"},
    ]:
        (name,) = parameters
        wire.refused(INVALID, [name], add_tensors(), parameters=parameters)


def test_texts_that_are_very_long(wire: Wire) -> None:
    """What a caller sends does not come back in full."""
    long = "l" * 100_000
    wire.refused(INVALID, ["lll"], add_tensors(), parameters={"timeout": long})
    wire.refused(INVALID, [], [Tensor(long, [1, 4]), Tensor("b", [1, 4])])
    wire.refused(INVALID, ["a"], [Tensor("a", [1, 4], long), Tensor("b", [1, 4])])
    wire.refused(INVALID, [], add_tensors(), outputs=[long])
    request = service.ModelInferRequest(model_name=long)
    code, text = wire.grpc(request)
    assert code in (INVALID[0], NOT_FOUND[0]) and len(text) < 2000
    request = service.ModelInferRequest(model_name="add", model_version=long)
    code, text = wire.grpc(request)
    assert code in (INVALID[0], NOT_FOUND[0]) and len(text) < 2000
    request = service.ModelInferRequest(model_name="add")
    tensor = request.inputs.add(name="a", datatype="FP32", shape=[1, 4])
    tensor.parameters["shared_memory_region"].string_param = long
    tensor.parameters["shared_memory_byte_size"].int64_param = 16
    code, text = wire.grpc(request)
    assert code == NOT_FOUND[0] and len(text) < 2000


def test_what_is_only_claimed_costs_no_memory(wire: Wire, grpc_api: Api, unique: str) -> None:
    """Shapes, lengths and files that stand for terabytes, none of which come."""
    server = wire.server
    key = Path("/dev/shm") / unique
    try:
        with open(key, "wb") as file:
            # All of it a hole, which costs its owner nothing.
            file.truncate(2**40)
        grpc_api.client.register_system_shared_memory(unique, unique, 2**40)
        server.forget_peak()
        before = server.memory_bytes("VmRSS")
        for shape in [[2**40], [2**61]]:
            wire.refused(INVALID, ["'x'"], [Tensor("x", shape)], model="nonzero")
        wire.refused(
            INVALID, ["'a'"], [Tensor("a", [1, 2**40], "BYTES", b"\xff" * 4)], model="text"
        )
        request = service.ModelInferRequest(model_name="nonzero")
        tensor = request.inputs.add(name="x", datatype="FP32", shape=[2**38])
        tensor.parameters["shared_memory_region"].string_param = unique
        tensor.parameters["shared_memory_byte_size"].int64_param = 2**40
        code, text = wire.grpc(request)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(2**40) in text and str(256 * 2**20) in text, text
        host, port = server.http.split(":")
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                address = (host, int(port))
                connection = stack.enter_context(socket.create_connection(address, timeout=60))
                head = b"POST /v2/models/add/infer HTTP/1.1\r\nHost: x\r\n"
                connection.sendall(head + b"Content-Length: 268435456\r\n\r\n{")
            # One that comes later is answered while they wait.
            for _, code, text in wire.both(add_tensors()):
                assert code in (grpc.StatusCode.OK, 200), text
            assert server.memory_bytes("VmHWM") - before < 64 * 2**20
    finally:
        grpc_api.client.unregister_system_shared_memory(unique)
        key.unlink()


def test_regions_never_registered(wire: Wire) -> None:
    request = service.ModelInferRequest(model_name="add")
    for name in ["a", "b"]:
        tensor = request.inputs.add(name=name, datatype="FP32", shape=[1, 4])
        tensor.parameters["shared_memory_region"].string_param = "never"
        tensor.parameters["shared_memory_byte_size"].int64_param = 16
    code, text = wire.grpc(request)
    assert code == grpc.StatusCode.NOT_FOUND and "'never'" in text
    for parameter, value in [("shared_memory_byte_size", -1), ("shared_memory_offset", -1)]:
        bad = service.ModelInferRequest()
        bad.CopyFrom(request)
        bad.inputs[0].parameters[parameter].int64_param = value
        code, text = wire.grpc(bad)
        assert code == grpc.StatusCode.INVALID_ARGUMENT and "-1" in text, text
    bad = service.ModelInferRequest()
    bad.CopyFrom(request)
    bad.inputs[0].parameters["shared_memory_region"].int64_param = 3
    code, text = wire.grpc(bad)
    assert code == grpc.StatusCode.INVALID_ARGUMENT and "shared_memory_region" in text, text


class TestGrpc:
    """What only a message of gRPC can say."""

    def request(self) -> service.ModelInferRequest:
        request = service.ModelInferRequest(model_name="add")
        for name in ["a", "b"]:
            request.inputs.add(name=name, datatype="FP32", shape=[1, 4])
        return request

    def refused(self, wire: Wire, request: service.ModelInferRequest, *words: str) -> None:
        code, text = wire.grpc(request)
        assert code == grpc.StatusCode.INVALID_ARGUMENT, (code, text)
        for word in words:
            assert word in text, (word, text)

    def test_typed_and_raw_contents_in_one_request(self, wire: Wire) -> None:
        request = self.request()
        request.inputs[0].contents.fp32_contents[:] = ROW
        request.raw_input_contents.append(RAW)
        self.refused(wire, request, "raw_input_contents")
        request.raw_input_contents.append(RAW)
        self.refused(wire, request, "raw_input_contents")

    def test_numbers_of_raw_contents(self, wire: Wire) -> None:
        request = self.request()
        self.refused(wire, request)
        request.raw_input_contents.append(RAW)
        self.refused(wire, request, "1")
        request.raw_input_contents.extend([RAW, RAW])
        self.refused(wire, request, "3", "2")

    def test_typed_contents_that_do_not_match(self, wire: Wire) -> None:
        def both() -> service.ModelInferRequest:
            request = self.request()
            for tensor in request.inputs:
                tensor.contents.fp32_contents[:] = ROW
            return request

        assert wire.grpc(both())[0] == grpc.StatusCode.OK
        for count in [0, 3, 5, 10_000]:
            request = both()
            del request.inputs[1].contents.fp32_contents[:]
            request.inputs[1].contents.fp32_contents.extend([0.0] * count)
            self.refused(wire, request, "'b'", "4", *([str(count)] if count else []))
        request = both()
        request.inputs[1].contents.int_contents[:] = [1, 2, 3, 4]
        self.refused(wire, request, "'b'")
        request = both()
        del request.inputs[1].contents.fp32_contents[:]
        request.inputs[1].contents.fp64_contents[:] = ROW
        self.refused(wire, request, "'b'", "FP32")

    def test_typed_values_out_of_range(self, wire: Wire) -> None:
        request = service.ModelInferRequest(model_name="scale_u8")
        tensor = request.inputs.add(name="x", datatype="UINT8", shape=[1, 16])
        tensor.contents.uint_contents[:] = [255] * 15 + [256]
        self.refused(wire, request, "'x'", "256")

    def test_half_floats_have_no_typed_contents(self, wire: Wire) -> None:
        for model, datatype in [("half", "FP16"), ("bf16", "BF16")]:
            request = service.ModelInferRequest(model_name=model)
            tensor = request.inputs.add(name="x", datatype=datatype, shape=[1, 8])
            tensor.contents.fp32_contents[:] = [0.0] * 8
            self.refused(wire, request, "'x'", datatype)

    def test_messages_that_are_none(self, wire: Wire) -> None:
        with grpc.insecure_channel(wire.server.grpc) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for message in [b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"\x2a\x02\x0a"]:
                with pytest.raises(grpc.RpcError) as refused:
                    call(message)
                assert refused.value.code() in (
                    grpc.StatusCode.INVALID_ARGUMENT,
                    grpc.StatusCode.INTERNAL,
                )

    def test_messages_that_are_too_large(self, wire: Wire) -> None:
        request = service.ModelInferRequest(model_name="nonzero")
        request.inputs.add(name="x", datatype="FP32", shape=[70 * 2**20])
        request.raw_input_contents.append(bytes(280 * 2**20))
        code, _ = wire.grpc(request)
        assert code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE)

    def test_methods_that_are_none(self, wire: Wire) -> None:
        with grpc.insecure_channel(wire.server.grpc) as channel:
            for path in ["/inference.GRPCInferenceService/Nothing", "/nothing.At/All"]:
                with pytest.raises(grpc.RpcError) as refused:
                    channel.unary_unary(path)(b"")
                assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


class TestHttp:
    """What only a body of HTTP can say."""

    def good(self) -> dict[str, Any]:
        return {
            "inputs": [
                {"name": name, "datatype": "FP32", "shape": [1, 4], "data": [0, 1, 2, 3]}
                for name in ["a", "b"]
            ]
        }

    def changed(self, change: Callable[[dict[str, Any]], object]) -> bytes:
        request = self.good()
        change(request)
        return json.dumps(request).encode()

    def refused(self, wire: Wire, body: bytes, *words: str, **options: Any) -> None:
        code, text = wire.http(body, **options)
        assert code == 400, (code, text)
        for word in words:
            assert word in text, (word, text)
        assert len(text) < 2000, len(text)

    def test_the_good_one_is_good(self, wire: Wire) -> None:
        code, text = wire.http(json.dumps(self.good()).encode())
        assert code == 200
        assert json.loads(text)["outputs"][0]["data"] == [0, 2, 4, 6]

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b"3",
            b"null",
            b'"text"',
            b"\xff\xfe{}",
            b'{"inputs": "\xff"}',
            b'{"inputs": 3}',
            b'{"inputs": [3]}',
            b'{"inputs": {}}',
            b"{}",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b'{"inputs": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
            b'{"inputs": []} trailing',
            b'{"inputs": [], "inputs": []}',
        ],
    )
    def test_bodies_that_are_no_request(self, wire: Wire, body: bytes) -> None:
        self.refused(wire, body)

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            ([0, 1, 2], ["4", "3"]),
            ([0, 1, 2, 3, 4], ["4"]),
            ([[[0, 1, 2, 3]]], []),
            ([[0, 1], [2, 3]], []),
            ([0, 1, 2, "3"], []),
            ([0, 1, 2, None], []),
            ([0, 1, 2, True], []),
            ("AAAA", []),
            ({"0": 1}, []),
            (3, []),
        ],
    )
    def test_data_that_does_not_match(self, wire: Wire, data: Any, words: list[str]) -> None:
        body = self.changed(lambda request: request["inputs"][0].update(data=data))
        code, text = wire.http(body)
        if code == 200:
            # Nested as the values are, whatever the shape: so does Triton take it.
            assert data in ([[[0, 1, 2, 3]]], [[0, 1], [2, 3]]), data
            return
        assert code == 400, (code, text)
        for word in ["'a'", *words]:
            assert word in text, (word, text)

    @pytest.mark.parametrize("value", [256, -1, 1.5, 1e300, 2**64])
    def test_numbers_out_of_range(self, wire: Wire, value: Any) -> None:
        tensor = {"name": "x", "datatype": "UINT8", "shape": [1, 16], "data": [0] * 15 + [value]}
        body = json.dumps({"inputs": [tensor]}).encode()
        self.refused(wire, body, "'x'", path="/v2/models/scale_u8/infer")

    @pytest.mark.parametrize(
        "shape", ["1", {"a": 1}, [1.5, 4], ["1", 4], [1, 2**64], [[1, 4]], None]
    )
    def test_shapes_that_are_no_list_of_numbers(self, wire: Wire, shape: Any) -> None:
        self.refused(wire, self.changed(lambda request: request["inputs"][0].update(shape=shape)))

    @pytest.mark.parametrize("size", [-1, 0, 15, 17, 2**40, 2**64, "16", 1.5, None])
    def test_binary_sizes_that_disagree(self, wire: Wire, size: Any) -> None:
        tensors = [
            {
                "name": "a",
                "datatype": "FP32",
                "shape": [1, 4],
                "parameters": {"binary_data_size": size},
            },
            {"name": "b", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]},
        ]
        head = json.dumps({"inputs": tensors}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        self.refused(wire, head + RAW, "'a'", headers=headers)

    @pytest.mark.parametrize("length", ["-1", "0", "1", "999999", "18446744073709551616", "x", ""])
    def test_lengths_of_the_header_that_lie(self, wire: Wire, length: str) -> None:
        body = json.dumps(self.good()).encode()
        self.refused(wire, body, headers={"Inference-Header-Content-Length": length})

    def test_bytes_that_nobody_claims(self, wire: Wire) -> None:
        head = json.dumps(self.good()).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        self.refused(wire, head + b"spare", "5", headers=headers)

    def test_an_input_with_two_contents(self, wire: Wire) -> None:
        def change(request: dict[str, Any]) -> None:
            request["inputs"][0]["parameters"] = {"binary_data_size": 16}

        head = self.changed(change)
        headers = {"Inference-Header-Content-Length": str(len(head))}
        self.refused(wire, head + RAW, "'a'", headers=headers)

    def test_bodies_that_are_not_compressed_as_they_say(self, wire: Wire) -> None:
        body = json.dumps(self.good()).encode()
        for encoding in ["gzip", "deflate"]:
            self.refused(wire, body, headers={"Content-Encoding": encoding})
        code, text = wire.http(body, headers={"Content-Encoding": "rot13"})
        assert (code, "gzip" in text) == (415, True), (code, text)

    def test_a_body_that_grows_beyond_the_limit(self, wire: Wire) -> None:
        body = gzip.compress(b" " * (300 * 2**20), 1)
        code, text = wire.http(body, headers={"Content-Encoding": "gzip"})
        assert code == 413, (code, text)

    def test_a_body_that_says_that_it_is_too_large(self, wire: Wire) -> None:
        host, port = wire.server.http.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            head = b"POST /v2/models/add/infer HTTP/1.1\r\nHost: x\r\n"
            connection.sendall(head + b"Content-Length: 99999999999999\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 413")

    def test_methods_and_routes(self, wire: Wire) -> None:
        assert wire.http(b"", path="/v2/nothing", method="GET")[0] == 404
        code, _ = wire.http(b"", path="/v2/models/add/infer", method="GET")
        assert code == 405
        code, _ = wire.http(b"", path="/v2/models/add/versions/x/infer")
        assert code in (400, 404)

    def test_a_registration_that_is_no_json(self, wire: Wire) -> None:
        path = "/v2/systemsharedmemory/region/r/register"
        for body in [
            b"",
            b"{",
            b"[]",
            b'{"key": 3, "byte_size": 4}',
            b'{"key": "/k", "byte_size": -1}',
            b'{"key": "/k", "byte_size": 18446744073709551616}',
            b'{"byte_size": 4}',
        ]:
            self.refused(wire, body, path=path)
