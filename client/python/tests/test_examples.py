"""The examples run, and say what they should."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, WATCHDOG_SECONDS, Server, wait_for

EXAMPLES = ROOT / "examples/python"


def run(example: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_digits(shared_server: Server) -> None:
    printed = run("digits.py", f"--socket-dir={shared_server.socket_dir}")
    assert "that is a 6" in printed and "@@" in printed
    assert float(printed.split("(")[1].split("%")[0]) > 95


def test_dlpack_torch(shared_server: Server) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    printed = run("dlpack_torch.py", f"--socket-dir={shared_server.socket_dir}")
    assert "digits: [6, 0, 2, 9, 8, 4, 2, 5]"[:12] in printed
    assert "shares the server's pages: True" in printed


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def serving(command: list[str], shared_server: Server, port: int) -> Iterator[None]:
    environment = os.environ | {"ADJOIN_SOCKET_DIR": shared_server.socket_dir}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)

    def is_up() -> bool:
        assert process.poll() is None, "the service ended"
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for("the service listens", is_up)
        yield
    finally:
        process.terminate()
        process.wait(WATCHDOG_SECONDS)


def post(url: str, image: np.ndarray) -> dict[str, object]:
    body = json.dumps({"image": image.tolist()}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=WATCHDOG_SECONDS) as response:
        return json.loads(response.read())


def test_web_service_with_four_workers(shared_server: Server, digits) -> None:
    images, labels = digits
    port = free_port()
    command = [sys.executable, str(EXAMPLES / "web_service.py"), f"--port={port}", "--workers=4"]
    with serving(command, shared_server, port):
        wait_for("all workers have a session", lambda: shared_server.sessions("web") == 4)
        url = f"http://127.0.0.1:{port}/digit"
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda image: post(url, image[0]), images[:200]))
        right = np.mean([answer["digit"] for answer in answers] == labels[:200])
        assert right > 0.95
        assert len({answer["worker"] for answer in answers}) > 1
        with pytest.raises(urllib.error.HTTPError, match="422"):
            post(url, np.zeros((7, 8)))
    wait_for("all sessions are closed", lambda: shared_server.sessions("web") == 0)


GUNICORN_APP = """
import functools, json, os
import adjoin, numpy as np

@functools.cache
def model(pid):
    return adjoin.connect(name="gunicorn").model("digits")

def app(environ, start_response):
    body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    image = np.array(body["image"], np.float32)[None, None]
    scores = model(os.getpid())(image=image)["scores"]
    answer = {"digit": int(scores.argmax()), "worker": os.getpid()}
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps(answer).encode()]
"""


def test_gunicorn_workers(shared_server: Server, digits, tmp_path: Path) -> None:
    images, labels = digits
    (tmp_path / "service.py").write_text(GUNICORN_APP)
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers=2", "--log-level=error"]
    command += [f"--chdir={tmp_path}", f"--bind=127.0.0.1:{port}", "service:app"]
    with serving(command, shared_server, port):
        url = f"http://127.0.0.1:{port}/"
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda image: post(url, image[0]), images[:100]))
        assert np.mean([answer["digit"] for answer in answers] == labels[:100]) > 0.95
