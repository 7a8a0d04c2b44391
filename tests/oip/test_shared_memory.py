"""System shared memory as in Triton's own examples, and what must not be possible with it."""

import base64
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.utils.shared_memory as shm
from conftest import Api, make_api
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from server import Server, wait_for

A = np.arange(16, dtype=np.float32).reshape(4, 4)
B = np.full((4, 4), 100, np.float32)
BYTES = A.nbytes
INVALID = ("StatusCode.INVALID_ARGUMENT", "400")
NOT_FOUND = ("StatusCode.NOT_FOUND", "404")


@dataclass
class Memory:
    """Objects in /dev/shm, made by Triton's utility, and gone after the test."""

    unique: str
    handles: list[Any] = field(default_factory=list)

    def make(self, byte_size: int) -> tuple[Any, str]:
        key = f"{self.unique}-{len(self.handles)}"
        handle = shm.create_shared_memory_region(key, key, byte_size, create_only=True)
        self.handles.append(handle)
        return handle, key


@pytest.fixture
def memory(unique: str) -> Iterator[Memory]:
    memory = Memory(unique)
    yield memory
    for handle in memory.handles:
        with contextlib.suppress(Exception):
            shm.destroy_shared_memory_region(handle)


@pytest.fixture(autouse=True)
def no_regions(api: Api) -> Iterator[None]:
    """What Triton's examples begin with, and what tests leave behind."""
    api.client.unregister_system_shared_memory()
    api.client.unregister_cuda_shared_memory()
    yield
    api.client.unregister_system_shared_memory()


def refused(call: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **options)
    return caught.value.status(), caught.value.message()


def status(api: Api, name: str = "") -> dict[str, dict[str, Any]]:
    found = api.as_json("get_system_shared_memory_status", name)
    regions = found.get("regions", {}).values() if api.is_grpc else found
    return {region["name"]: region for region in regions}


def in_region(
    api: Api, name: str, region: str, shape: list[int], size: int, offset: int = 0
) -> Any:
    tensor = api.library.InferInput(name, shape, "FP32")
    tensor.set_shared_memory(region, size, offset=offset)
    return tensor


def to_region(api: Api, name: str, region: str, size: int, offset: int = 0) -> Any:
    output = api.library.InferRequestedOutput(name)
    output.set_shared_memory(region, size, offset=offset)
    return output


def test_the_sequence_of_tritons_example(api: Api, memory: Memory) -> None:
    client = api.client
    output, output_key = memory.make(BYTES)
    client.register_system_shared_memory("output_data", output_key, BYTES)
    inputs, input_key = memory.make(2 * BYTES)
    shm.set_shared_memory_region(inputs, [A])
    shm.set_shared_memory_region(inputs, [B], offset=BYTES)
    client.register_system_shared_memory("input_data", input_key, 2 * BYTES)

    registered = status(api)
    assert sorted(registered) == ["input_data", "output_data"]
    assert registered["input_data"]["key"] == input_key
    assert int(registered["input_data"]["byte_size"]) == 2 * BYTES
    assert list(status(api, "input_data")) == ["input_data"]

    for _ in range(3):
        result = client.infer(
            "add",
            [
                in_region(api, "a", "input_data", [4, 4], BYTES),
                in_region(api, "b", "input_data", [4, 4], BYTES, offset=BYTES),
            ],
            outputs=[to_region(api, "sum", "output_data", BYTES)],
        )
        sums = result.get_output("sum")
        datatype, shape = (
            (sums.datatype, list(sums.shape)) if api.is_grpc else (sums["datatype"], sums["shape"])
        )
        assert (datatype, shape) == ("FP32", [4, 4])
        # Triton's C++ clients need both: a place among the raw contents, no parameters in JSON.
        if api.is_grpc:
            assert list(result.get_response().raw_output_contents) == [b""]
        else:
            assert "parameters" not in sums
        found = shm.get_contents_as_numpy(output, np.float32, [4, 4])
        assert np.array_equal(found, A + B)

    client.unregister_system_shared_memory("input_data")
    assert list(status(api)) == ["output_data"]
    client.unregister_system_shared_memory()
    assert status(api) == {}


def test_one_input_in_a_region_and_one_in_the_message(api: Api, memory: Memory) -> None:
    handle, key = memory.make(BYTES)
    shm.set_shared_memory_region(handle, [A])
    api.client.register_system_shared_memory("a", key, BYTES)
    for first in [True, False]:
        inputs = [in_region(api, "a", "a", [4, 4], BYTES), api.input("b", B)]
        result = api.client.infer("add", inputs if first else inputs[::-1])
        assert np.array_equal(result.as_numpy("sum"), A + B)


def test_a_part_of_an_object_is_a_region(api: Api, memory: Memory) -> None:
    handle, key = memory.make(4096 + BYTES)
    shm.set_shared_memory_region(handle, [A], offset=4)
    # Not a multiple of the page size: Triton refuses this, here it is no matter.
    api.client.register_system_shared_memory("part", key, BYTES, offset=4)
    inputs = [in_region(api, name, "part", [4, 4], BYTES) for name in ["a", "b"]]
    assert np.array_equal(api.client.infer("add", inputs).as_numpy("sum"), 2 * A)


def test_strings_in_regions(api: Api, memory: Memory) -> None:
    values = np.array([[b"nul\0", b"\xff\xfe", b""]], dtype=object)
    serialised = serialize_byte_tensor(values).item()
    handle, key = memory.make(4096)
    shm.set_shared_memory_region(handle, [np.frombuffer(serialised, np.uint8)])
    api.client.register_system_shared_memory("strings", key, 4096)
    inputs = []
    for name in ["a", "b"]:
        tensor = api.library.InferInput(name, [1, 3], "BYTES")
        tensor.set_shared_memory("strings", len(serialised))
        inputs.append(tensor)
    outputs = [to_region(api, "both", "strings", 2048, offset=1024)]
    api.client.infer("text", inputs, outputs=outputs)
    both = shm.get_contents_as_numpy(handle, np.object_, [1, 6], offset=1024)
    assert both.tolist() == [[b"nul\0", b"\xff\xfe", b""] * 2]
    # Lengths that lie: more than there is, and less.
    for lie in [b"\xff\xff\xff\xff", b"\x01\0\0\0", b"\xf0\xff\xff\x7f"]:
        broken = np.frombuffer(lie + serialised[4:], np.uint8)
        shm.set_shared_memory_region(handle, [broken])
        code, text = refused(api.client.infer, "text", inputs)
        assert code in INVALID, text
        assert "'a'" in text


def test_large_regions(api: Api, memory: Memory) -> None:
    x = np.zeros(100 * 2**20 // 4, np.float32)
    x[[3, -1]] = 1
    handle, key = memory.make(x.nbytes)
    shm.set_shared_memory_region(handle, [x])
    api.client.register_system_shared_memory("large", key, x.nbytes)
    inputs = [in_region(api, "x", "large", [len(x)], x.nbytes)]
    answer = api.client.infer("nonzero", inputs).as_numpy("indices")
    assert answer.tolist() == [[3, len(x) - 1]]


def test_registrations_that_cannot_be(
    api: Api, memory: Memory, unique: str, tmp_path: Path
) -> None:
    register = api.client.register_system_shared_memory
    _, key = memory.make(BYTES)
    link = Path("/dev/shm") / f"{unique}-link"
    second = Path("/dev/shm") / f"{unique}-second"
    fifo = Path("/dev/shm") / f"{unique}-fifo"
    folder = Path("/dev/shm") / f"{unique}-folder"
    linked = Path("/dev/shm") / f"{unique}-linked"
    try:
        link.symlink_to("/etc/passwd")
        linked.write_bytes(b"x" * BYTES)
        second.hardlink_to(linked)
        os.mkfifo(fifo)
        folder.mkdir()
        for name, bad_key, size, offset, words in [
            (
                "r",
                f"{unique}-nothing",
                BYTES,
                0,
                f"Unable to open shared memory region: '{unique}-nothing'",
            ),
            ("r", link.name, BYTES, 0, f"Unable to open shared memory region: '{link.name}'"),
            ("r", second.name, BYTES, 0, "2 links"),
            ("r", fifo.name, BYTES, 0, "not a regular file"),
            ("r", folder.name, BYTES, 0, "Unable to open shared memory region"),
            ("r", "../etc/passwd", BYTES, 0, "no '/' but a leading one"),
            ("r", "..", BYTES, 0, "not a step"),
            ("r", "", BYTES, 0, "at least 1 byte"),
            ("r", "k" * 300, BYTES, 0, "300 bytes"),
            ("r", "a\0b", BYTES, 0, "no NUL"),
            ("r", key, 4096 * 4, 1, "16384 bytes at offset 1 of"),
            ("r", key, 0, 0, "0 bytes at offset 0"),
            ("r", key, 2**64 - 1, 1, "invalid args"),
            ("r", key, 1, 2**64 - 1, "invalid args"),
            ("n" * 300, key, BYTES, 0, "300 bytes"),
        ]:
            code, text = refused(register, name, bad_key, size, offset=offset)
            assert code in INVALID, (bad_key, text)
            assert words in text, (bad_key, text)
            assert len(text) < 1000
            assert "/dev/shm" not in text
        assert status(api) == {}
    finally:
        for path in [link, second, fifo, linked]:
            path.unlink(missing_ok=True)
        folder.rmdir()


def test_registering_a_name_twice(api: Api, memory: Memory) -> None:
    _, key = memory.make(BYTES)
    api.client.register_system_shared_memory("twice", key, BYTES)
    code, text = refused(api.client.register_system_shared_memory, "twice", key, BYTES)
    assert code in ("StatusCode.ALREADY_EXISTS", "400")
    assert text == "shared memory region 'twice' already in manager"


def test_regions_that_are_not_there(api: Api, memory: Memory) -> None:
    code, text = refused(api.client.get_system_shared_memory_status, "never")
    assert code in NOT_FOUND
    assert text == "Unable to find system shared memory region: 'never'"
    # As with Triton, forgetting what is not there is no error.
    api.client.unregister_system_shared_memory("never")
    inputs = [in_region(api, name, "never", [4, 4], BYTES) for name in ["a", "b"]]
    code, text = refused(api.client.infer, "add", inputs)
    assert code in NOT_FOUND
    assert "Unable to find shared memory region: 'never'" in text
    outputs = [to_region(api, "sum", "never", BYTES)]
    code, text = refused(api.client.infer, "add", api.inputs({"a": A, "b": B}), outputs=outputs)
    assert code in NOT_FOUND


def test_extents_that_are_not_in_the_region(api: Api, memory: Memory) -> None:
    _, key = memory.make(BYTES)
    api.client.register_system_shared_memory("r", key, BYTES)
    good = api.input("b", B)
    for size, offset, words in [
        (BYTES, BYTES, f"Invalid offset for shared memory region: 'r': {BYTES}, in {BYTES} bytes"),
        (BYTES, 2**62, "Invalid offset for shared memory region: 'r'"),
        (BYTES, 4, "Invalid offset + byte size for shared memory region: 'r'"),
        (BYTES + 64, 0, "has 128 bytes"),
        (BYTES - 4, 0, "60"),
    ]:
        tensor = in_region(api, "a", "r", [4, 4], size, offset=offset)
        code, text = refused(api.client.infer, "add", [tensor, good])
        assert code in INVALID, (size, offset, text)
        assert words in text or "Invalid offset + byte size" in text, (size, offset, text)
        output = to_region(api, "sum", "r", size, offset=offset)
        if size >= BYTES:
            code, text = refused(
                api.client.infer, "add", api.inputs({"a": A, "b": B}), outputs=[output]
            )
            assert code in INVALID, (size, offset, text)
    for size, offset in [(BYTES, -1), (-1, 0), (0, 0)]:
        tensor = in_region(api, "a", "r", [4, 4], BYTES)
        set_raw(api, tensor, size, offset)
        code, text = refused(api.client.infer, "add", [tensor, good])
        assert code in INVALID, (size, offset, text)


def set_raw(api: Api, tensor: Any, size: int, offset: int) -> None:
    """What the client library would refuse or leave out itself."""
    if api.is_grpc:
        parameters = tensor._get_tensor().parameters
        parameters["shared_memory_byte_size"].int64_param = size
        parameters["shared_memory_offset"].int64_param = offset
    else:
        tensor._parameters["shared_memory_byte_size"] = size
        tensor._parameters["shared_memory_offset"] = offset


def test_an_output_that_does_not_fit(api: Api, memory: Memory) -> None:
    handle, key = memory.make(BYTES)
    api.client.register_system_shared_memory("small", key, BYTES)
    outputs = [to_region(api, "sum", "small", BYTES - 4)]
    code, text = refused(api.client.infer, "add", api.inputs({"a": A, "b": B}), outputs=outputs)
    assert code in ("StatusCode.INTERNAL", "500")
    assert "shared memory size specified with the request for output 'sum' (60 bytes)" in text
    assert "should be at least 64 bytes to hold the results" in text
    assert not shm.get_contents_as_numpy(handle, np.float32, [4, 4]).any()


def test_contents_beside_a_region(grpc_api: Api, memory: Memory) -> None:
    _, key = memory.make(BYTES)
    grpc_api.client.register_system_shared_memory("r", key, BYTES)
    tensor = in_region(grpc_api, "a", "r", [4, 4], BYTES)
    tensor._get_tensor().contents.fp32_contents[:] = [0.0] * 16
    code, text = refused(grpc_api.client.infer, "add", [tensor, grpc_api.input("b", B)])
    assert code in INVALID
    assert "unexpected 'content' provided when using shared memory" in text


def test_a_file_cut_short_is_an_error_and_not_the_end_of_the_server(
    api: Api, memory: Memory, server: Server
) -> None:
    _, key = memory.make(BYTES)
    api.client.register_system_shared_memory("r", key, BYTES)
    os.truncate(f"/dev/shm/{key}", 10)
    tensor = in_region(api, "a", "r", [4, 4], BYTES)
    code, text = refused(api.client.infer, "add", [tensor, api.input("b", B)])
    assert code in INVALID
    assert "its file ends at 10 bytes" in text
    outputs = [to_region(api, "sum", "r", BYTES)]
    code, text = refused(api.client.infer, "add", api.inputs({"a": A, "b": B}), outputs=outputs)
    assert code in INVALID
    assert "its file ends at 10 bytes" in text
    assert server.is_running()
    assert os.stat(f"/dev/shm/{key}").st_size == 10


def test_unregistering_in_flight_lets_the_request_finish(
    api: Api, server: Server, memory: Memory
) -> None:
    rows = np.ones((32, 64), np.float32)
    handle, key = memory.make(2 * rows.nbytes)
    shm.set_shared_memory_region(handle, [rows])
    api.client.register_system_shared_memory("busy", key, 2 * rows.nbytes)
    inputs = [in_region(api, "x", "busy", [32, 64], rows.nbytes)]
    outputs = [to_region(api, "y", "busy", rows.nbytes, offset=rows.nbytes)]
    errors: list[Any] = []
    waiting = []
    for _ in range(4):
        if api.is_grpc:
            api.client.async_infer(
                "slow", inputs, lambda result, error: errors.append(error), outputs=outputs
            )
        else:
            waiting.append(api.client.async_infer("slow", inputs, outputs=outputs))
    other = make_api(server, api.name)
    other.client.unregister_system_shared_memory()
    assert status(other) == {}
    for each in waiting:
        each.get_result()
        errors.append(None)
    wait_for("all requests have an answer", lambda: len(errors) == 4)
    # Those that came before are answered from the region; one that came later does not find it.
    for error in errors:
        assert error is None or "Unable to find shared memory region" in str(error)
    other.client.close()


def test_refused_registrations_hold_no_descriptor(api: Api, memory: Memory, server: Server) -> None:
    _, key = memory.make(BYTES)
    refused(api.client.register_system_shared_memory, "r", key, 2**40)
    before = server.descriptors()
    for _ in range(200):
        refused(api.client.register_system_shared_memory, "r", key, 2**40)
    assert server.descriptors() <= before + 8


def test_cuda_calls_are_answered_without_a_gpu(api: Api) -> None:
    found = api.as_json("get_cuda_shared_memory_status")
    assert (found.get("regions", {}) if api.is_grpc else found) in ({}, [])
    code, _ = refused(
        api.client.register_cuda_shared_memory, "r", base64.b64encode(b"\0" * 64), 0, 64
    )
    assert code in ("StatusCode.UNIMPLEMENTED", "501")
    api.client.unregister_cuda_shared_memory("r")


def test_regions_of_the_control_socket_are_others_than_those_of_tcp(
    server: Server, memory: Memory, grpc_api: Api
) -> None:
    _, key = memory.make(BYTES)
    grpc_api.client.register_system_shared_memory("mine", key, BYTES)
    # Newer releases of gRPC send the path as authority, which is none by the rules of HTTP/2.
    options = [("grpc.default_authority", "localhost")]
    client = grpcclient.InferenceServerClient(server.control, channel_args=options)
    local = Api("grpc", grpcclient, client, server.control)
    assert status(local) == {}
    local.client.register_system_shared_memory("mine", key, BYTES)
    local.client.unregister_system_shared_memory()
    assert list(status(grpc_api)) == ["mine"]
    local.client.close()


def test_without_the_flag_it_is_off() -> None:
    server = Server()
    try:
        for name in ["grpc", "http"]:
            api = make_api(server, name)
            api.client.unregister_system_shared_memory()
            assert status(api) == {}
            code, text = refused(api.client.register_system_shared_memory, "r", "/r", 64)
            assert code in ("StatusCode.UNIMPLEMENTED", "501")
            assert "--allow-named-shm" in text
            api.client.close()
    finally:
        server.stop()


def test_without_the_right_it_is_refused() -> None:
    server = Server("--allow-named-shm=/dev/shm", config="")
    try:
        for name in ["grpc", "http"]:
            api = make_api(server, name)
            code, text = refused(api.client.register_system_shared_memory, "r", "/r", 64)
            assert code in ("StatusCode.PERMISSION_DENIED", "403")
            assert '"regions"' in text
            api.client.close()
    finally:
        server.stop()
