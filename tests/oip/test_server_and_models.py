"""What clients ask before they infer: health, metadata, configuration, statistics."""

import urllib.request

import numpy as np
import pytest
from conftest import Api
from tritonclient.utils import InferenceServerException

from server import Server


def test_health(api: Api) -> None:
    assert api.client.is_server_live()
    assert api.client.is_server_ready()
    assert api.client.is_model_ready("add")
    assert api.client.is_model_ready("add", "1")
    assert not api.client.is_model_ready("add", "2")
    assert not api.client.is_model_ready("nothing")


def test_server_metadata(api: Api) -> None:
    metadata = api.as_json("get_server_metadata")
    assert metadata["name"] == "adjoin"
    assert metadata["version"]
    assert {
        "classification",
        "model_repository",
        "model_configuration",
        "system_shared_memory",
        "cuda_shared_memory",
        "binary_tensor_data",
        "parameters",
        "statistics",
        "trace",
        "logging",
    } <= set(metadata["extensions"])


def test_model_metadata(api: Api) -> None:
    metadata = api.as_json("get_model_metadata", "add")
    assert metadata["name"] == "add"
    assert metadata["versions"] == ["1"]
    assert metadata["platform"] == "onnxruntime_onnx"
    numbers = [
        (tensor["name"], tensor["datatype"], [int(dim) for dim in tensor["shape"]])
        for tensor in metadata["inputs"] + metadata["outputs"]
    ]
    assert numbers == [
        ("a", "FP32", [-1, 4]),
        ("b", "FP32", [-1, 4]),
        ("sum", "FP32", [-1, 4]),
    ]


def test_model_config_is_complete_without_a_file(api: Api) -> None:
    config = api.config("add")
    assert config["name"] == "add"
    assert config["platform"] == "onnxruntime_onnx"
    assert config["backend"] == "onnxruntime"
    assert config["max_batch_size"] == 65536
    inputs = [
        (tensor["name"], tensor["data_type"], [int(dim) for dim in tensor["dims"]])
        for tensor in config["input"]
    ]
    assert inputs == [("a", "TYPE_FP32", [4]), ("b", "TYPE_FP32", [4])]
    assert [tensor["name"] for tensor in config["output"]] == ["sum"]
    assert "dynamic_batching" in config


def test_model_config_of_a_file(api: Api) -> None:
    config = api.config("digits")
    assert config["max_batch_size"] == 32
    assert config["output"][0]["label_filename"] == "labels.txt"
    batching = config["dynamic_batching"]
    assert [int(size) for size in batching["preferred_batch_size"]] == [8, 16]
    assert int(batching["max_queue_delay_microseconds"]) == 500


@pytest.mark.parametrize(
    "call", ["get_model_metadata", "get_model_config", "get_inference_statistics"]
)
def test_unknown_models_are_not_found(api: Api, call: str) -> None:
    with pytest.raises(InferenceServerException) as refused:
        getattr(api.client, call)("nothing")
    assert "nothing" in refused.value.message()
    assert refused.value.message().startswith("Request for unknown model")
    assert refused.value.status() in ("StatusCode.NOT_FOUND", "404")
    with pytest.raises(InferenceServerException) as refused:
        getattr(api.client, call)("add", "7")
    assert "7" in refused.value.message()


def count(api: Api, model: str) -> dict[str, int]:
    (stats,) = api.as_json("get_inference_statistics", model)["model_stats"]
    assert (stats["name"], stats["version"]) == (model, "1")
    success = stats["inference_stats"]["success"]
    return {
        "inferences": int(stats.get("inference_count", 0)),
        "executions": int(stats.get("execution_count", 0)),
        "successes": int(success.get("count", 0)),
        "ns": int(success.get("ns", 0)),
        "queued": int(stats["inference_stats"]["queue"].get("count", 0)),
    }


def test_statistics_count_requests_and_rows(api: Api) -> None:
    row = np.zeros((3, 16), np.uint8)
    before = count(api, "scale_u8")
    for _ in range(4):
        api.infer("scale_u8", {"x": row})
    after = count(api, "scale_u8")
    assert after["successes"] - before["successes"] == 4
    assert after["inferences"] - before["inferences"] == 12
    assert 1 <= after["executions"] - before["executions"] <= 4
    assert after["queued"] - before["queued"] == 4
    assert after["ns"] > before["ns"]


def test_statistics_of_all_models(api: Api) -> None:
    stats = api.as_json("get_inference_statistics")["model_stats"]
    assert {"add", "digits"} <= {each["name"] for each in stats}


def test_tritons_metrics_stand_beside_ours(server: Server, api: Api) -> None:
    api.infer("fixed", {"x": np.ones((2, 3), np.float32)})
    with urllib.request.urlopen(server.metrics) as answer:
        text = answer.read().decode()
    lines = [line for line in text.splitlines() if line.startswith("nv_inference_request_success")]
    (fixed,) = [line for line in lines if 'model="fixed"' in line]
    assert 'version="1"' in fixed
    assert int(float(fixed.rsplit(" ", 1)[1])) >= 1
    for name in ["nv_inference_count", "nv_inference_exec_count", "nv_inference_queue_duration_us"]:
        assert name in text
