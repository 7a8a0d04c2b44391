"""The servers of a run: installed, started, and asleep while they are not wanted.

A server that uses processor time while nobody asks anything would take it from the others. Such a
one is found after the start, stopped where it is (SIGSTOP) while others are measured, and measured
by itself.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .peer import Peer, Site, Target
from .problems import Unavailable
from .processes import Server, end_marked, remove_traces

# Part of a core that a server may use while it idles and still be awake beside others.
IDLE_SHARE = 0.02
# How long they are left to settle, and then looked at.
IDLE_LOOK_S = 3.0

MEASURED, UNAVAILABLE, NOT_ASKED = "measured", "unavailable", "not asked for"


@dataclass
class Fleet:
    site: Site
    peers: list[Peer]
    states: dict[str, tuple[str, str]] = field(default_factory=dict)
    """What became of each peer, and why."""
    servers: dict[str, Server] = field(default_factory=dict)
    restless: dict[str, float] = field(default_factory=dict)
    """Servers that are measured by themselves, and the part of a core that they use idly."""

    def start(self) -> None:
        self.site.scratch.mkdir(mode=0o700)
        for peer in self.peers:
            try:
                print(f"starting {peer.name}", flush=True)
                peer.prepare()
                for server in peer.start():
                    self.servers[server.name] = server
                self.states[peer.name] = (MEASURED, "")
            except Unavailable as problem:
                print(f"{peer.name} is left out: {problem}", flush=True)
                self.states[peer.name] = (UNAVAILABLE, str(problem))
        self.find_restless()

    def find_restless(self) -> None:
        if len(self.servers) < 2:
            return
        time.sleep(IDLE_LOOK_S)
        before = {name: server.processor_s() for name, server in self.servers.items()}
        time.sleep(IDLE_LOOK_S)
        for name, server in self.servers.items():
            share = (server.processor_s() - before[name]) / IDLE_LOOK_S
            if share > IDLE_SHARE:
                print(f"{name} uses {share:.0%} of a core idly: measured by itself", flush=True)
                self.restless[name] = round(share, 3)
                server.pause()

    def available(self) -> list[Peer]:
        return [peer for peer in self.peers if self.states[peer.name][0] == MEASURED]

    def companies(self, targets: list[Target]) -> list[list[Target]]:
        """What is measured in one go: targets at rest together, each other server alone."""
        together = [target for target in targets if target.server not in self.restless]
        alone = ([target for target in targets if target.server == name] for name in self.restless)
        return [company for company in (together, *alone) if company]

    @contextmanager
    def awake(self, targets: list[Target]) -> Iterator[None]:
        """Wakes the servers of these targets, if they are kept stopped."""
        names = {target.server for target in targets} & self.restless.keys()
        for name in names:
            self.servers[name].resume()
        try:
            yield
        finally:
            for name in names:
                self.servers[name].pause()

    def pids(self, target: Target) -> tuple[int, ...]:
        server = self.servers.get(target.server)
        return (server.pid,) if server else ()

    def stop(self) -> None:
        """Ends all servers and whatever else this run started; removes its memory and sockets."""
        for server in self.servers.values():
            server.resume()
        for server in self.servers.values():
            server.stop()
        end_marked(self.site.mark)
        remove_traces(self.site.mark)
