"""One server for all tests, and both of Triton's client libraries behind one set of names."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import np_to_triton_dtype

from server import Server


@dataclass
class Api:
    """A client library, and a client of the server."""

    name: str
    library: ModuleType
    client: Any
    url: str

    @property
    def is_grpc(self) -> bool:
        return self.name == "grpc"

    def input(self, name: str, value: np.ndarray, datatype: str | None = None) -> Any:
        tensor = self.library.InferInput(
            name, list(value.shape), datatype or np_to_triton_dtype(value.dtype)
        )
        tensor.set_data_from_numpy(value)
        return tensor

    def inputs(self, values: dict[str, np.ndarray]) -> list[Any]:
        return [self.input(name, value) for name, value in values.items()]

    def output(self, name: str, **options: Any) -> Any:
        return self.library.InferRequestedOutput(name, **options)

    def infer(self, model: str, values: dict[str, np.ndarray], **options: Any) -> Any:
        return self.client.infer(model, self.inputs(values), **options)

    def config(self, model: str) -> Any:
        """A model's configuration, as a dictionary."""
        if self.is_grpc:
            return self.client.get_model_config(model, as_json=True)["config"]
        return self.client.get_model_config(model)

    def as_json(self, call: str, *arguments: Any, **options: Any) -> Any:
        """What a call answers, in JSON's types: over gRPC that of its message."""
        if self.is_grpc:
            options["as_json"] = True
        return getattr(self.client, call)(*arguments, **options)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server("--model-control-mode=explicit", "--load-model=*", "--allow-named-shm=/dev/shm")
    yield server
    assert server.is_running(), f"the server did not survive its tests:\n{server.log}"
    server.stop()


def make_api(server: Server, name: str) -> Api:
    if name == "grpc":
        client = grpcclient.InferenceServerClient(server.grpc)
        return Api(name, grpcclient, client, server.grpc)
    client = httpclient.InferenceServerClient(server.http, concurrency=8)
    return Api(name, httpclient, client, server.http)


@pytest.fixture(params=["grpc", "http"])
def api(request: pytest.FixtureRequest, server: Server) -> Iterator[Api]:
    api = make_api(server, request.param)
    yield api
    api.client.close()


@pytest.fixture
def grpc_api(server: Server) -> Iterator[Api]:
    api = make_api(server, "grpc")
    yield api
    api.client.close()


@pytest.fixture
def http_api(server: Server) -> Iterator[Api]:
    api = make_api(server, "http")
    yield api
    api.client.close()


_numbers = itertools.count()


@pytest.fixture
def unique() -> str:
    """A name that no other test has."""
    return f"adjoin-oip-{os.getpid()}-{next(_numbers)}"
