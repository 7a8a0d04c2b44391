"""Falcon under gunicorn: the plain Python web service, msgpack over HTTP."""

from functools import partial

from ..peer import READY_S, Peer, Server, Target, answers
from ..ports import HOST
from ..workloads import CLIENTS_OPEN, IN_FLIGHT_MAX

# Processes of gunicorn. Each has the models, and one core's worth of Python.
WORKERS = (1, 2)
# Each connection that is open but says nothing yet holds one.
THREADS = CLIENTS_OPEN * IN_FLIGHT_MAX


class Falcon(Peer):
    name = "falcon"
    title = "Falcon, gunicorn"
    package = "falcon"
    settings = (
        f"gunicorn with gthread workers of {THREADS} threads, connections stay open for 75 s",
        f"{' or '.join(map(str, WORKERS))} worker processes; no batching: Falcon has none",
    )

    def start(self) -> list[Server]:
        servers = [self.spawn(self.server(w), self.command(w)) for w in WORKERS]
        for workers, server in zip(WORKERS, servers, strict=True):
            ready = partial(answers, self.port_of(workers), "/ready")
            server.wait_ready(ready, READY_S)
        return servers

    def command(self, workers: int) -> list[object]:
        return (
            [self.python, "-m", "gunicorn", "--bind", f"{HOST}:{self.port_of(workers)}"]
            + ["--workers", str(workers), "--worker-class", "gthread", "--threads", str(THREADS)]
            + ["--keep-alive", "75", "--timeout", "120", "--log-level", "warning"]
            + ["--chdir", self.folder, "--worker-tmp-dir", self.site.scratch, "app:app"]
        )

    def server(self, workers: int) -> str:
        return f"{self.name}-{workers}"

    def port_of(self, workers: int) -> int:
        return self.port + WORKERS.index(workers)

    def targets(self, model: str, batching: bool) -> list[Target]:
        return [
            Target(
                self.name,
                "HTTP, msgpack",
                f"http-msgpack:http://{HOST}:{self.port_of(workers)}/{model}",
                self.server(workers),
                setting=f"{workers} worker{'s' if workers > 1 else ''}",
                python="http-msgpack",
            )
            for workers in (WORKERS if batching else WORKERS[:1])
        ]
