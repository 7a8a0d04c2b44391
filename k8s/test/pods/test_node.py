"""One server for the pods of a node, by a directory of the host."""

from __future__ import annotations

from collections.abc import Callable

import probes
import pytest
from conftest import Documents, find, tallies, wait_for_answers
from kubelet import Pod, StartError, wait_until
from volumes import Node

Render = Callable[[str], Documents]
SERVER, APPLICATION = "DaemonSet/adjoin-node", "Deployment/digits"


def test_an_upgrade_under_load_fails_no_request(render: Render, node: Node) -> None:
    documents = render("daemonset")
    # Without a pause between requests.
    find(documents, "Deployment", "digits")["args"] = ["/run/adjoin"]
    server = Pod(documents, SERVER, node, "server-1")
    with server, Pod(documents, APPLICATION, node, "client-1") as one, Pod(documents, APPLICATION, node, "client-2") as two:
        server.start()
        server.wait_until_ready()
        clients = [one, two]
        for client in clients:
            client.start()
            wait_for_answers(client["digits"])
        for round_ in (2, 3, 4):
            # As a DaemonSet with maxSurge: the next pod becomes ready, then the former one is deleted.
            successor = Pod(documents, SERVER, node, f"server-{round_}")
            with server:
                successor.start()
                successor.wait_until_ready()
                for client in clients:
                    wait_for_answers(client["digits"], servers=round_)
                former = server["adjoin"]
                assert former.is_running, former.log()
                address = f"{server.address}:8001"
                wait_until("the former one is not ready", lambda: probes.health(address, "adjoin/ready") == "NOT_SERVING")
                assert probes.health(address, "adjoin/live") == "SERVING"
                server.stop()
                assert former.exit_code == 0, former.log()
            server = successor
        with server:
            for client in clients:
                wait_for_answers(client["digits"], servers=4)
                counts = tallies(client["digits"])
                assert sum(t["answered"] for t in counts) > 1000
                assert [t["failed"] for t in counts] == [0] * len(counts), client["digits"].log()


def test_a_second_server_without_takeover_is_refused(render: Render, node: Node) -> None:
    documents = render("daemonset")
    second = render("daemonset")
    find(second, "DaemonSet", "adjoin")["args"] = ["serve", "--config=/etc/adjoin/adjoin.toml"]
    with Pod(documents, SERVER, node, "server-1") as first, Pod(second, SERVER, node, "server-2") as other:
        first.start()
        with pytest.raises(StartError, match=r"already running in /run/adjoin"):
            other.start()
        assert other["adjoin"].exit_code == 1
        assert probes.health(f"{first.address}:8001", "") == "SERVING"


def test_a_client_outside_of_the_group_is_told_so(render: Render, node: Node) -> None:
    documents = render("daemonset")
    for document in documents:
        if document["kind"] == "Deployment":
            document["spec"]["template"]["spec"]["securityContext"]["supplementalGroups"] = []
    with Pod(documents, SERVER, node, "server-1") as server, Pod(documents, APPLICATION, node, "client-1") as client:
        server.start()
        client.start()
        assert client["digits"].wait() == 1
        assert "user 10002 may not connect" in client["digits"].log()
