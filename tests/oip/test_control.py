"""Models that come and go by Triton's model control, and the repository's index."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from conftest import Api, make_api
from tritonclient.utils import InferenceServerException

from server import Server

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def index(api: Api) -> dict[str, dict[str, str]]:
    found = api.as_json("get_model_repository_index")
    models = found["models"] if api.is_grpc else found
    return {f"{model['name']}/{model.get('version', '')}": model for model in models}


@pytest.fixture
def model(server: Server, unique: str) -> str:
    """A model in the repository that is not loaded."""
    server.put(unique, model="fixed")
    return unique


def test_load_infer_unload(api: Api, model: str) -> None:
    client = api.client
    assert not client.is_model_ready(model)
    assert index(api)[f"{model}/"].get("state", "") in ("", "UNAVAILABLE", "UNKNOWN")
    client.load_model(model)
    assert client.is_model_ready(model)
    assert index(api)[f"{model}/1"]["state"] == "READY"
    answer = api.infer(model, {"x": X}).as_numpy("y")
    assert np.array_equal(answer, X)
    client.unload_model(model)
    assert not client.is_model_ready(model)
    with pytest.raises(InferenceServerException, match="Request for unknown model"):
        api.infer(model, {"x": X})
    # And again.
    client.load_model(model)
    assert client.is_model_ready(model)
    client.unload_model(model)


def test_a_load_finds_new_versions(api: Api, server: Server, model: str) -> None:
    api.client.load_model(model)
    server.put(model, version=3, model="fixed")
    assert api.as_json("get_model_metadata", model)["versions"] == ["1"]
    api.client.load_model(model)
    assert api.as_json("get_model_metadata", model)["versions"] == ["3"]
    api.client.unload_model(model)


def test_a_load_with_a_configuration(api: Api, model: str) -> None:
    config = {
        "backend": "onnxruntime",
        # A number as protobuf writes it in JSON.
        "max_batch_size": "0",
        "version_policy": {"specific": {"versions": ["1"]}},
        "instance_group": [{"count": 2, "kind": "KIND_CPU"}],
    }
    api.client.load_model(model, config=json.dumps(config))
    groups = api.config(model)["instance_group"]
    assert sum(int(group["count"]) for group in groups) == 2
    api.client.unload_model(model)
    for wrong, words in [
        ('{"max_batch_size": "many"}', "line 1, column 25"),
        ('{"no_such_field": 1}', "no_such_field"),
        ("{", "line 1"),
        ("[]", "line 1"),
        ("[" * 10_000, "line 1"),
    ]:
        with pytest.raises(InferenceServerException) as refused:
            api.client.load_model(model, config=wrong)
        assert refused.value.status() in ("StatusCode.INVALID_ARGUMENT", "400"), str(refused.value)
        assert words in refused.value.message()
        assert not api.client.is_model_ready(model)


def test_files_of_a_load_are_refused(api: Api, model: str) -> None:
    with pytest.raises(InferenceServerException) as refused:
        api.client.load_model(model, config="{}", files={"file:1/model.onnx": b"anything"})
    assert "file:1/model.onnx" in refused.value.message()
    assert refused.value.status() in ("StatusCode.UNIMPLEMENTED", "501")


def test_a_load_that_fails_says_why_and_leaves_what_was(
    api: Api, server: Server, model: str
) -> None:
    api.client.load_model(model)
    broken = server.repository / model / "2"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(InferenceServerException) as refused:
        api.client.load_model(model)
    assert model in refused.value.message()
    assert str(server.repository) not in refused.value.message()
    assert np.array_equal(api.infer(model, {"x": X}).as_numpy("y"), X)
    api.client.unload_model(model)


@pytest.mark.parametrize("name", ["nothing", "../models", "a/b", "x" * 300, "nul\0", ".hidden", ""])
def test_models_that_cannot_be(api: Api, name: str) -> None:
    for call in [api.client.load_model, api.client.unload_model]:
        with pytest.raises(InferenceServerException) as refused:
            call(name)
        assert refused.value.status() in (
            "StatusCode.INVALID_ARGUMENT",
            "StatusCode.NOT_FOUND",
            "400",
            "404",
        ), str(refused.value)
        assert len(refused.value.message()) < 1000


@pytest.fixture(scope="module")
def fixed_server() -> Iterator[Server]:
    """One that loads all at its start and nothing later."""
    server = Server()
    yield server
    server.stop()


@pytest.mark.parametrize("name", ["grpc", "http"])
def test_without_explicit_mode_nobody_loads(fixed_server: Server, name: str) -> None:
    api = make_api(fixed_server, name)
    for call in [api.client.load_model, api.client.unload_model]:
        with pytest.raises(InferenceServerException) as refused:
            call("add")
        assert refused.value.message() == (
            "explicit model load / unload is not allowed if polling is enabled"
        )
        assert refused.value.status() in ("StatusCode.UNAVAILABLE", "503")
    assert index(api)["add/1"]["state"] == "READY"
    api.client.close()
