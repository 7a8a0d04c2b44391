"""Settings of the log and of traces, which Triton's clients read and write."""

import pytest
from conftest import Api
from tritonclient.utils import InferenceServerException


def log_settings(api: Api) -> dict[str, str]:
    found = api.as_json("get_log_settings")
    if not api.is_grpc:
        return {name: str(value) for name, value in found.items()}
    settings = found["settings"]
    return {name: str(next(iter(value.values()), "")) for name, value in settings.items()}


def test_log_settings(api: Api) -> None:
    before = log_settings(api)
    assert {"log_info", "log_warning", "log_error", "log_verbose_level", "log_format"} <= set(
        before
    )
    api.client.update_log_settings({"log_verbose_level": 1})
    assert log_settings(api)["log_verbose_level"] == "1"
    api.client.update_log_settings({"log_verbose_level": 0})
    assert log_settings(api)["log_verbose_level"] == before["log_verbose_level"] == "0"
    with pytest.raises(InferenceServerException) as refused:
        api.client.update_log_settings({"no_such_setting": 1})
    assert "no_such_setting" in refused.value.message()


def trace_settings(api: Api, **options: str) -> dict[str, list[str]]:
    found = api.as_json("get_trace_settings", **options)
    if not api.is_grpc:
        return {k: v if isinstance(v, list) else [v] for k, v in found.items()}
    return {name: value.get("value", []) for name, value in found["settings"].items()}


def test_trace_settings(api: Api) -> None:
    settings = trace_settings(api)
    assert {"trace_level", "trace_rate"} <= set(settings)
    assert trace_settings(api, model_name="add")
    with pytest.raises(InferenceServerException) as refused:
        api.client.update_trace_settings(settings={"no_such_setting": "1"})
    assert "no_such_setting" in refused.value.message()
