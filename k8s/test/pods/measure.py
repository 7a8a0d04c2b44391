"""What a pod costs: benches/results/pods.json. As root, after `make images` and with the images of the tests:

    PYTHONPATH=k8s/test/pods target/k8s/venv/bin/python k8s/test/pods/measure.py

Start: from the order to make the pod until the client's first answer, everything of podman and of probes in it. Memory: what
a session of 2 MiB adds to the server's control group. Latency: requests of a client in the pod, and of the same two programs
outside of any container, in turns; the model is the demo's, on the built-in engine, with one thread."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import podman
import yaml
from conftest import KUBECTL, ROOT, Documents, find, memory_bytes
from kubelet import Pod, wait_until
from volumes import Node

STARTS, ROUNDS, REQUESTS, SESSIONS = 5, 9, 20_000, 16
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "x86_64-unknown-linux-gnu" / "release-image"
IMAGES = ("adjoin", "adjoin-onnxruntime", "adjoin-csi", "adjoin-demo-client")
CONFIGURATION = "[defaults]\nintra_op_threads = 1\n"


def render(overlay: str) -> Documents:
    command = [KUBECTL, "kustomize", str(ROOT / "k8s" / "overlays" / overlay)]
    return list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def start_seconds(node: Node) -> float:
    """From the order to the first answer."""
    with Pod(render("demo-sidecar"), "Deployment/digits", node) as pod:
        began = time.time()
        pod.start()
        client = pod["digits"]
        wait_until("the first answer", lambda: "first answer" in client.log())
        lines = podman.podman("logs", "--timestamps", client.name).stdout.splitlines()
        stamp = next(line for line in lines if "first answer" in line).split()[0]
    # Nine digits of a second are more than Python reads.
    answered = datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", stamp))
    return answered.timestamp() - began


def session_bytes(node: Node) -> dict[str, int]:
    """The server's memory without a client, and what each session adds."""
    with Pod(render("daemonset"), "DaemonSet/adjoin-node", node) as pod:
        pod.start()
        server = pod["adjoin"]
        idle = memory_bytes(server)
        program = [str(TARGET / "examples" / "digits"), str(node.path("/run/adjoin")), "--pause-ms", "100"]
        clients = [subprocess.Popen(program, stdout=subprocess.PIPE, text=True) for _ in range(SESSIONS)]
        try:
            for client in clients:
                assert client.stdout is not None and client.stdout.readline() == "first answer\n"
            each = (memory_bytes(server) - idle) // SESSIONS
        finally:
            for client in clients:
                client.kill()
                client.wait()
    return {"idle_bytes": idle, "session_bytes": each, "region_bytes": 2 << 20, "sessions": SESSIONS}


def p50_us(run: Callable[[], str]) -> float:
    found = re.search(r"p50 Some\(([0-9.]+)(ns|µs|ms)\)", run())
    assert found
    return float(found[1]) * {"ns": 1e-3, "µs": 1.0, "ms": 1e3}[found[2]]


def latency(node: Node) -> dict[str, object]:
    """In the pod and outside, in turns."""
    documents = render("demo-sidecar")
    for document in documents:
        if document["kind"] == "ConfigMap":
            document["data"]["adjoin.toml"] += CONFIGURATION
    # A client that does nothing but hold the container; what measures is run in it.
    client = find(documents, "Deployment", "digits")
    client |= {"args": ["/run/adjoin", "--pause-ms", "1000000"], "image": "adjoin-demo-client:0.1.0"}
    with tempfile.TemporaryDirectory() as directory, Pod(documents, "Deployment/digits", node) as pod:
        pod.spec["containers"][0]["volumeMounts"].append({"name": "measure", "mountPath": "/measure", "readOnly": True})
        pod.spec["volumes"].append({"name": "measure", "hostPath": {"path": "/measure", "type": "DirectoryOrCreate"}})
        program = TARGET / "examples" / "closed_loop"
        node.path("/measure").mkdir(parents=True)
        copy = node.path("/measure") / program.name
        copy.write_bytes(program.read_bytes())
        copy.chmod(0o755)
        pod.start()
        home = Path(directory)
        (home / "models/digits/1").mkdir(parents=True)
        (home / "models/digits/1/model.onnx").write_bytes((ROOT / "demo/digits/model.onnx").read_bytes())
        (home / "adjoin.toml").write_text(CONFIGURATION)
        serve = [str(TARGET / "adjoin"), "serve", "--model-repository", str(home / "models")]
        serve += ["--socket-dir", str(home / "run"), "--config", str(home / "adjoin.toml")]
        server = subprocess.Popen(serve, stderr=subprocess.DEVNULL)
        try:
            wait_until("the server outside", (home / "run/attach.sock").exists)
            arguments = ["digits", str(REQUESTS)]

            def inside() -> str:
                return pod["digits"].run("/measure/closed_loop", "/run/adjoin", *arguments).stdout

            def outside() -> str:
                command = [str(program), str(home / "run"), *arguments]
                return subprocess.run(command, capture_output=True, text=True, check=True).stdout

            pairs = [(p50_us(inside), p50_us(outside)) for _ in range(ROUNDS)]
        finally:
            server.terminate()
            server.wait()
    ratios = sorted(pod / host for pod, host in pairs)
    return {
        "pod_p50_us": statistics.median(pod for pod, _ in pairs),
        "outside_p50_us": statistics.median(host for _, host in pairs),
        "paired_ratio": {"median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1], "rounds": ROUNDS},
        "requests": REQUESTS,
    }


def main() -> None:
    podman_directory = tempfile.TemporaryDirectory()
    podman.configure(Path(podman_directory.name))
    reason = podman.why_not()
    if reason is not None:
        raise SystemExit(f"measure.py: {reason}")
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    with tempfile.TemporaryDirectory() as directory:
        nodes = iter(Node(Path(directory) / str(number)) for number in range(STARTS + 2))
        results = {
            "command": "k8s/test/pods/measure.py",
            "date": datetime.date.today().isoformat(),
            "machine": {"cpu": cpu[1] if cpu else "?", "cpus": os.cpu_count(), "kernel": platform.release()},
            "podman": podman.podman("--version").stdout.split()[-1],
            "image_bytes": {name: podman.inspect("image", f"localhost/{name}:0.1.0")["Size"] for name in IMAGES},
            "start_to_first_answer_s": sorted(round(start_seconds(next(nodes)), 3) for _ in range(STARTS)),
            "server_memory": session_bytes(next(nodes)),
            "latency": latency(next(nodes)),
        }
    out = ROOT / "benches/results/pods.json"
    out.write_text(json.dumps(results, indent=2) + "\n")
    print(out.read_text(), end="")


if __name__ == "__main__":
    main()
