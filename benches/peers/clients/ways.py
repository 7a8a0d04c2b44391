"""The ways that Python programs call the servers. Each connects once, and then a call is one
request.

Inputs are written once: in shared memory they lie there already, elsewhere the client's library
takes the array. What is inside of a call is what a program does until it has the output as an
array.
"""

import http.client
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "serving"))

from codec import pack, unpack

TIMEOUT_S = 120
OUTPUT = np.dtype("<f4")
Call = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Job:
    """What one client asks for, again and again."""

    address: str
    model: str
    rows: np.ndarray
    output_shape: tuple[int, ...]
    segment: str
    """How names of shared memory begin that this client makes."""


def in_process(job: Job) -> Call:
    from engine import Model

    model = Model(job.model)
    return lambda: model.run(job.rows)


def adjoin_shared(job: Job) -> Call:
    import adjoin

    room = 1 << 20
    client = adjoin.connect(
        job.address,
        request_bytes=job.rows.nbytes + room,
        response_bytes=int(np.prod(job.output_shape)) * OUTPUT.itemsize + room,
    )
    request = client.model(job.model).request(shapes={"input": job.rows.shape})
    request["input"][:] = job.rows

    def call() -> np.ndarray:
        with request.infer(timeout=TIMEOUT_S) as result:
            return result["output"]

    return call


def post(connection: http.client.HTTPConnection, path: str, body: bytes, kind: str) -> bytes:
    connection.request("POST", path, body, {"Content-Type": kind})
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        raise RuntimeError(f"HTTP {response.status}: {answer[:150]!r}")
    return answer


def open_url(url: str) -> tuple[http.client.HTTPConnection, str]:
    host, _, path = url.removeprefix("http://").partition("/")
    return http.client.HTTPConnection(host, timeout=TIMEOUT_S), "/" + path


def http_msgpack(job: Job) -> Call:
    connection, path = open_url(job.address)

    def call() -> np.ndarray:
        return unpack(post(connection, path, pack(job.rows), "application/msgpack"), OUTPUT)

    return call


def http_multipart(job: Job) -> Call:
    connection, path = open_url(job.address)
    boundary = "adjoin-peers"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="data"; filename="x"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    kind = f"multipart/form-data; boundary={boundary}"

    def call() -> np.ndarray:
        body = b"".join((head, pack(job.rows), tail))
        return unpack(post(connection, path, body, kind), OUTPUT)

    return call


def triton(job: Job, library, binary: dict) -> Call:
    """Tensors in messages: `library` is tritonclient.grpc or tritonclient.http."""
    client = library.InferenceServerClient(job.address)
    tensor = library.InferInput("input", list(job.rows.shape), datatype(job.rows))
    output = library.InferRequestedOutput("output", **binary)

    def call() -> np.ndarray:
        tensor.set_data_from_numpy(job.rows, **binary)
        return client.infer(job.model, [tensor], outputs=[output]).as_numpy("output")

    return call


def triton_shared(job: Job, library) -> Call:
    """Tensors in system shared memory, which is registered once."""
    import atexit

    from tritonclient.utils import shared_memory

    client = library.InferenceServerClient(job.address)
    output_bytes = int(np.prod(job.output_shape)) * OUTPUT.itemsize
    regions = []
    for part, size in (("input", job.rows.nbytes), ("output", output_bytes)):
        name = f"{job.segment}_{part}"
        region = shared_memory.create_shared_memory_region(name, f"/{name}", size)
        atexit.register(shared_memory.destroy_shared_memory_region, region)
        client.register_system_shared_memory(name, f"/{name}", size)
        atexit.register(client.unregister_system_shared_memory, name)
        regions.append(region)
    shared_memory.set_shared_memory_region(regions[0], [job.rows])
    tensor = library.InferInput("input", list(job.rows.shape), datatype(job.rows))
    tensor.set_shared_memory(f"{job.segment}_input", job.rows.nbytes)
    output = library.InferRequestedOutput("output")
    output.set_shared_memory(f"{job.segment}_output", output_bytes)

    def call() -> np.ndarray:
        client.infer(job.model, [tensor], outputs=[output])
        return shared_memory.get_contents_as_numpy(regions[1], OUTPUT, job.output_shape)

    return call


def datatype(rows: np.ndarray) -> str:
    from tritonclient.utils import np_to_triton_dtype

    return np_to_triton_dtype(rows.dtype)


def grpc(job: Job) -> Call:
    import tritonclient.grpc

    return triton(job, tritonclient.grpc, {})


def grpc_shared(job: Job) -> Call:
    import tritonclient.grpc

    return triton_shared(job, tritonclient.grpc)


def http_v2(job: Job) -> Call:
    import tritonclient.http

    return triton(job, tritonclient.http, {"binary_data": True})


def http_v2_shared(job: Job) -> Call:
    import tritonclient.http

    return triton_shared(job, tritonclient.http)


WAYS: dict[str, Callable[[Job], Call]] = {
    "in-process": in_process,
    "adjoin": adjoin_shared,
    "http-msgpack": http_msgpack,
    "http-multipart": http_multipart,
    "grpc": grpc,
    "grpc-shm": grpc_shared,
    "http": http_v2,
    "http-shm": http_v2_shared,
}
