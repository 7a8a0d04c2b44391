"""Probes as the kubelet makes them: from outside, to the pod's own address, or as a command in the container."""

from __future__ import annotations

import socket
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from kubelet import Container


def succeeds(container: Container, probe: dict[str, Any]) -> bool:
    """Whether a probe succeeds now."""
    limit = float(probe.get("timeoutSeconds", 1))
    address = container.pod.address
    match probe:
        case {"exec": {"command": command}}:
            try:
                # The time of the probe is the command's; that podman itself takes comes on top.
                return container.run(*command, timeout=limit + 5).returncode == 0
            except subprocess.TimeoutExpired:
                return False
        case {"httpGet": {"port": port, "path": path}}:
            return status_of(f"http://{address}:{container.port(port)}{path}", limit) in range(200, 400)
        case {"tcpSocket": {"port": port}}:
            try:
                socket.create_connection((address, container.port(port)), limit).close()
            except OSError:
                return False
            return True
        case {"grpc": {"port": port, **rest}}:
            return health(f"{address}:{port}", rest.get("service", ""), limit) == "SERVING"
        case _:
            raise NotImplementedError(f"a probe of this kind: {probe}")


def status_of(url: str, limit: float = 5) -> int:
    """The status of an HTTP answer; 0 if there is none."""
    try:
        with urllib.request.urlopen(url, timeout=limit) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def health(address: str, service: str, limit: float = 5) -> str:
    """What grpc.health.v1 says of a service: the name of the status, or that of the call's error."""
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = stub.Check(request, timeout=limit)
        except grpc.RpcError as error:
            return error.code().name
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
