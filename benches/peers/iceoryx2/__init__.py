"""iceoryx2's request-response: the floor of transports through shared memory, with no server around
it.

Its server and client are adjoin-loadgen's. Both wait by looking all the time, so it would take a
core from whoever is measured beside it: it is measured by itself, with the in-process call for
company.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from ..peer import READY_S, Peer, Server, Target
from ..workloads import Tensor


class Iceoryx2(Peer):
    name = "iceoryx2"
    title = "iceoryx2"
    settings = (
        "request-response, both sides look all the time, the model on the request's memory",
    )

    def version(self) -> str:
        return "as adjoin-loadgen pins it"

    def prepare(self) -> None:
        """Nothing: it is inside of adjoin-loadgen."""

    def start(self) -> list[Server]:
        return []

    @contextmanager
    def on_demand(self, tensor: Tensor) -> Iterator[tuple[Server, Target] | None]:
        service = f"{self.site.mark}-{tensor.model}"
        server = self.spawn(
            f"{self.name}-{tensor.model}",
            [self.site.loadgen, "serve-iceoryx2", "--service", service]
            + ["--model", self.site.model_file(tensor.model), "--input", tensor.argument]
            + ["--threads", str(self.site.threads), "--onnxruntime", self.site.onnxruntime],
        )
        try:
            server.wait_ready(lambda: b"ready" in server.log.read_bytes(), READY_S)
            yield server, Target(self.name, "shared memory", f"iceoryx2:{service}", server.name)
        finally:
            server.stop()

    def targets(self, model: str, batching: bool) -> list[Target]:
        return []
