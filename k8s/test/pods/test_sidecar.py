"""The application with its sidecar: inference between two users without a right, and what outlives what."""

from __future__ import annotations

import os
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import probes
from conftest import Documents, descriptors, find, memory_bytes, metric, status, tallies, wait_for_answers
from kubelet import Pod, wait_until
from podman import inspect
from volumes import Node

Render = Callable[[str], Documents]
APPLICATION = "Deployment/digits"


def metrics(pod: Pod) -> str:
    with urllib.request.urlopen(f"http://{pod.address}:8002/metrics", timeout=5) as answer:
        return answer.read().decode()


def test_two_users_without_rights_infer_through_shared_memory(render: Render, node: Node) -> None:
    with Pod(render("demo-sidecar"), APPLICATION, node) as pod:
        pod.start()
        pod.wait_until_ready()
        server, client = pod["adjoin"], pod["digits"]
        wait_for_answers(client, more=2)
        for container, user in ((server, "65532"), (client, "10002")):
            assert status(container, "Uid").split() == [user] * 4
            assert status(container, "CapEff") == status(container, "CapBnd") == "0" * 16
            assert (status(container, "NoNewPrivs"), status(container, "Seccomp")) == ("1", "2")
            assert "20000" in status(container, "Groups").split()
            root = Path(f"/proc/{container.pid}/root")
            assert os.statvfs(root).f_flag & os.ST_RDONLY
            shm = os.statvfs(root / "dev/shm")
            assert shm.f_blocks * shm.f_frsize <= 64 << 20
            namespaces = [os.readlink(f"/proc/{pid}/ns/ipc") for pid in (container.pid, os.getpid())]
            assert namespaces[0] != namespaces[1], "the pod has the host's ipc namespace"
        pid_namespaces = {os.readlink(f"/proc/{container.pid}/ns/pid") for container in (server, client)}
        assert len(pid_namespaces) == 2

        total = tallies(client)
        answered, right = (sum(t[key] for t in total) for key in ("answered", "right"))
        assert answered > 0 and right >= 0.95 * answered and all(t["failed"] == 0 for t in total)
        text = metrics(pod)
        assert metric(text, "adjoin_inference_requests_total", model="digits", status="ok") >= answered
        assert metric(text, "adjoin_sessions") == 1
        # Only sockets and locks are in the volume: no tensor, and nothing that grows.
        files = {path.name: path.stat() for path in (pod.volumes.directory / "adjoin-sockets").iterdir()}
        assert set(files) == {"adjoin.lock", "attach.sock", "control.sock", "admin.sock"}
        assert all(file.st_size == 0 for file in files.values())


def test_probes_and_drain(render: Render, node: Node) -> None:
    with Pod(render("demo-sidecar"), APPLICATION, node) as pod:
        pod.start()
        pod.wait_until_ready()
        server, client = pod["adjoin"], pod["digits"]
        wait_for_answers(client)
        address = f"{pod.address}:8001"
        for service in ("", "adjoin/ready", "adjoin/live", "digits"):
            assert probes.health(address, service) == "SERVING"
        assert probes.health(address, "other") == "NOT_FOUND"
        assert probes.succeeds(server, server.spec["livenessProbe"])
        assert probes.status_of(f"http://{pod.address}:8002/healthz") == 200
        assert server.run("adjoin", "health").stdout == "serving\n"
        pod.stop()
        assert [(name, code) for name, code, _ in pod.hooks] == [("adjoin", 0)]
        assert server.exit_code == 0, server.log()
        assert all(t["failed"] == 0 for t in tallies(client))
        # The volume outlives its containers; what is left in it is the lock's file.
        left = {path.name for path in (pod.volumes.directory / "adjoin-sockets").iterdir()}
        assert left <= {"adjoin.lock", "takeover.lock"}


def test_a_job_completes_though_its_sidecar_runs(render: Render, node: Node) -> None:
    with Pod(render("job"), "Job/digits-batch", node) as pod:
        pod.start()
        assert pod.wait_until_complete() == 0, pod["digits"].log()
        (total,) = tallies(pod["digits"], "total")
        assert total["answered"] == 20 * 360 and total["failed"] == 0
        assert pod["adjoin"].exit_code == 0, pod["adjoin"].log()


def test_a_client_that_is_killed_fifty_times_leaves_nothing(render: Render, node: Node) -> None:
    with Pod(render("demo-sidecar"), APPLICATION, node) as pod:
        pod.start()
        server, client = pod["adjoin"], pod["digits"]

        def restart() -> None:
            client.kill()
            client.wait()
            client.start()
            # Killed in the middle of its work, not before.
            opened = metric(metrics(pod), "adjoin_inference_requests_total", model="digits", status="ok")
            wait_until(
                "the client works",
                lambda: metric(metrics(pod), "adjoin_inference_requests_total", model="digits", status="ok") > opened,
            )

        wait_for_answers(client)
        for _ in range(5):
            restart()
        one = lambda: metric(metrics(pod), "adjoin_sessions") == 1  # noqa: E731
        wait_until("sessions of the dead are gone", one)
        sockets = pod.volumes.directory / "adjoin-sockets"
        before = (descriptors(server), sorted(os.listdir(sockets)))
        memory = memory_bytes(server)
        for _ in range(45):
            restart()
        wait_until("sessions of the dead are gone", one)
        wait_until("descriptors are back", lambda: descriptors(server) <= before[0])
        assert sorted(os.listdir(sockets)) == before[1]
        # A session has 2 MiB, 45 of them 90.
        grown = memory_bytes(server) - memory
        assert grown < 4 << 20, f"{grown} bytes more are charged to the server"
        assert metric(metrics(pod), "adjoin_sessions_opened_total") == 51


def test_clients_carry_on_when_the_server_is_restarted_in_place(render: Render, node: Node) -> None:
    with Pod(render("demo-sidecar"), APPLICATION, node) as pod:
        pod.start()
        server, client = pod["adjoin"], pod["digits"]
        wait_for_answers(client)
        before = client.state["StartedAt"]
        for servers in (2, 3):
            server.kill(signal.SIGKILL if servers == 2 else signal.SIGTERM)
            assert server.wait() == (137 if servers == 2 else 0)
            server.start()
            server.wait_for_probe("startupProbe")
            wait_for_answers(client, servers)
        assert client.state["StartedAt"] == before, "the client was not restarted"


def test_the_image_with_onnx_runtime_finds_it(render: Render, node: Node) -> None:
    documents = render("demo-sidecar")
    find(documents, "Deployment", "adjoin")["image"] = "adjoin-onnxruntime:0.1.0"
    with Pod(documents, APPLICATION, node) as pod:
        pod.start()
        wait_for_answers(pod["digits"])
        assert "onnxruntime 1." in pod["adjoin"].log()
        assert metric(metrics(pod), "adjoin_requests_in_place_total", model="digits") > 0


def test_the_servers_image_is_small() -> None:
    # The command, and nothing else.
    assert inspect("image", "localhost/adjoin:0.1.0")["Size"] < 25_000_000
