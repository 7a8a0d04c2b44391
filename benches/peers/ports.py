"""The ports of loopback that the servers listen on: a fixed block for each peer."""

import socket
from collections.abc import Iterable

from .problems import Problem

HOST = "127.0.0.1"
PORTS_EACH = 10


def block(base: int, index: int) -> int:
    """The first port of the peer with this index."""
    return base + index * PORTS_EACH


def require_free(ports: Iterable[int]) -> None:
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as problem:
                raise Problem(
                    f"port {port} of {HOST} cannot be used ({problem.strerror}); free it, or "
                    "choose others with --base-port"
                ) from None
