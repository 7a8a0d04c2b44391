"""Probes and tools that run no model: gRPC's health protocol, reflection, plain HTTP."""

import json
import urllib.error
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from server import Server


def test_the_health_protocol(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ["", "add"]:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, service
        with pytest.raises(grpc.RpcError) as refused:
            stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


def test_reflection(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = set(database.get_services())
        assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= services
        file = database.FindFileContainingSymbol("inference.GRPCInferenceService")
        (service,) = [it for it in file.service if it.name == "GRPCInferenceService"]
        methods = {method.name for method in service.method}
        assert {"ModelInfer", "ModelStreamInfer", "SystemSharedMemoryRegister"} <= methods


def test_probes_over_http(server: Server) -> None:
    for path in ["live", "ready"]:
        with urllib.request.urlopen(f"http://{server.http}/v2/health/{path}") as answer:
            assert answer.status == 200
    with urllib.request.urlopen(f"http://{server.http}/v2/models/add/ready") as answer:
        assert answer.status == 200
    with urllib.request.urlopen(f"http://{server.http}/v2") as answer:
        assert json.load(answer)["name"] == "adjoin"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{server.http}/v2/models/nothing/ready")
    assert 400 <= refused.value.code < 500
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{server.http}/v3/nothing")
    assert refused.value.code == 404
