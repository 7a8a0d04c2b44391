"""The runtime of KServe, run with the arguments that its manifest has: what KServe would put into /mnt/models is served
under the InferenceService's name, over HTTP and gRPC."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import manifests
import pytest
from manifests import COMMAND, K8S, Rendered

MODEL = K8S.parent / "demo" / "digits" / "model.onnx"
(RUNTIME,) = [r for r in manifests.plain() if r.name == "kserve/clusterservingruntime.yaml"]


def container(rendered: Rendered) -> dict[str, Any]:
    (found,) = rendered.only("ClusterServingRuntime")["spec"]["containers"]
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def served(models: Path, name: str, work: Path) -> Iterator[dict[str, int]]:
    """The server with the manifest's arguments, but for where things are; gives its ports."""
    ports = {flag: free_port() for flag in ("http", "grpc", "metrics")}
    command = [str(COMMAND)]
    for argument in container(RUNTIME)["args"]:
        flag = argument.split("-addr=")[0].removeprefix("--")
        if flag in ports:
            argument = f"--{flag}-addr=127.0.0.1:{ports[flag]}"
        argument = argument.replace("/mnt/models", str(models)).replace("/run/adjoin", str(work / "run"))
        command.append(argument.replace("{{.Name}}", name))
    with (work / "log").open("w") as log, subprocess.Popen(command, stderr=log) as server:
        try:
            for _ in range(1500):
                assert server.poll() is None, (work / "log").read_text()
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", ports["http"])) == 0:
                        break
                time.sleep(0.02)
            yield ports
        finally:
            server.terminate()


def ask(port: int, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    method = "GET" if body is None else "POST"
    connection.request(method, path, None if body is None else json.dumps(body))
    response = connection.getresponse()
    text = response.read()
    return response.status, json.loads(text) if text.startswith(b"{") else text


@pytest.mark.parametrize("layout", ["model.onnx", "weights.onnx", "1/model.onnx", "digits/1/model.onnx"])
def test_whatever_is_in_mnt_models_is_served_under_the_services_name(layout: str, tmp_path: Path) -> None:
    models = tmp_path / "models"
    file = models / layout
    file.parent.mkdir(parents=True)
    shutil.copy(MODEL, file)
    with served(models, "digits", tmp_path) as ports:
        assert ask(ports["http"], "/v2/health/ready")[0] == 200
        status, model = ask(ports["http"], "/v2/models/digits")
        assert (status, model["name"]) == (200, "digits")
        (wanted,) = model["inputs"]
        shape = [1, *wanted["shape"][1:]]
        size = 1
        for extent in shape:
            size *= extent
        tensor = {"name": wanted["name"], "datatype": wanted["datatype"], "shape": shape, "data": [0] * size}
        status, answer = ask(ports["http"], "/v2/models/digits/infer", {"inputs": [tensor]})
        assert status == 200, answer
        assert answer["outputs"][0]["shape"][0] == 1
        assert b"adjoin_inference_requests_total" in ask(ports["metrics"], "/metrics")[1]
        with socket.create_connection(("127.0.0.1", ports["grpc"]), timeout=30):
            pass


def test_an_empty_directory_ends_the_server_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(AssertionError, match="holds no model"), served(tmp_path / "models", "digits", tmp_path):
        pass


def test_ports_of_the_manifest_agree() -> None:
    spec = RUNTIME.only("ClusterServingRuntime")["spec"]
    arguments = set(container(RUNTIME)["args"])
    # Where KServe sends v2 and grpc-v2 unless it is told otherwise.
    assert {"--http-addr=0.0.0.0:8080", "--grpc-addr=0.0.0.0:9000"} <= arguments
    assert f"--metrics-addr=0.0.0.0:{spec['annotations']['prometheus.kserve.io/port']}" in arguments
    assert container(RUNTIME)["name"] == "kserve-container"
    (services,) = [r for r in manifests.plain() if r.name == "kserve/inferenceservice.yaml"]
    formats = {entry["name"] for entry in spec["supportedModelFormats"]}
    for service in services.of_kind("InferenceService"):
        model = service["spec"]["predictor"]["model"]
        assert model["runtime"] == RUNTIME.only("ClusterServingRuntime")["metadata"]["name"]
        assert model["modelFormat"]["name"] in formats
        assert model["protocolVersion"] in spec["protocolVersions"]
