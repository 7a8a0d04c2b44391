"""What is wrong ends with a line that says so and an exit status; nothing hangs, and no client is started."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Documents, find
from kubelet import Pod, StartError, exists
from volumes import Node

Render = Callable[[str], Documents]
APPLICATION = "Deployment/digits"


def fails(documents: Documents, node: Node, pattern: str, status: int = 1) -> None:
    """The server does not start, for that reason, and the application not at all."""
    with Pod(documents, APPLICATION, node) as pod:
        with pytest.raises(StartError, match=pattern):
            pod.start()
        assert pod["adjoin"].exit_code == status
        assert not exists("container", pod["digits"].name)


def server(documents: Documents) -> dict:
    return find(documents, "Deployment", "adjoin")


def without_mount(container: dict, volume: str) -> None:
    container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != volume]


def test_no_models(render: Render, node: Node) -> None:
    documents = render("demo-sidecar")
    without_mount(server(documents), "adjoin-models")
    fails(documents, node, r"/models")


def test_a_socket_directory_that_cannot_be_written(render: Render, node: Node) -> None:
    documents = render("demo-sidecar")
    for mount in server(documents)["volumeMounts"]:
        mount["readOnly"] = True
    fails(documents, node, r"/run/adjoin.*Read-only file system")


def test_a_socket_directory_of_another_user(render: Render, node: Node) -> None:
    documents = render("daemonset")
    (daemon_set,) = [document for document in documents if document["kind"] == "DaemonSet"]
    daemon_set["spec"]["template"]["spec"]["initContainers"] = []
    with Pod(documents, "DaemonSet/adjoin-node", node) as pod:
        with pytest.raises(StartError, match=r"/run/adjoin.*Permission denied"):
            pod.start()
        assert pod["adjoin"].exit_code == 1


def test_a_wrong_configuration(render: Render, node: Node) -> None:
    documents = render("demo-sidecar")
    for document in documents:
        if document["kind"] == "ConfigMap":
            document["data"]["adjoin.toml"] = "[server]\nspin = 3\n"
    fails(documents, node, r"spin")


def test_too_little_memory_for_the_server(render: Render, node: Node) -> None:
    documents = render("demo-sidecar")
    server(documents)["resources"] = {"limits": {"memory": "6Mi"}}
    # The kernel ends it; what the kubelet tells of it is the reason OOMKilled and this status.
    fails(documents, node, r"ended with 137", 137)


def test_no_common_group(render: Render, node: Node) -> None:
    documents = render("demo-sidecar")
    for document in documents:
        if document["kind"] == "Deployment":
            del document["spec"]["template"]["spec"]["securityContext"]["fsGroup"]
    with Pod(documents, APPLICATION, node) as pod:
        pod.start()
        assert pod["digits"].wait() == 1
        log = pod["digits"].log()
        assert "user 10002 may not connect to /run/adjoin/attach.sock" in log
        assert pod["adjoin"].is_running


def test_a_client_of_an_older_release(render: Render, node: Node) -> None:
    documents = render("demo-sidecar")
    client = find(documents, "Deployment", "digits")
    client |= {"image": "localhost/adjoin-test-client:test", "args": ["/run/adjoin", "protocol", "0"]}
    with Pod(documents, APPLICATION, node) as pod:
        pod.start()
        assert pod["digits"].wait() == 1
        assert "refused protocol_mismatch [0, 1]" in pod["digits"].log()
        assert pod["adjoin"].is_running
