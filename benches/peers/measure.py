"""Measures one workload: chooses targets, calls clients, puts what they say into the results."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from .fleet import Fleet
from .loadgen import Caller, Loadgen
from .peer import Peer, Site, Target
from .problems import Unavailable
from .pythonclients import PythonClients
from .results import Results
from .summary import best, merge_phases
from .workloads import (
    CLIENTS_OPEN,
    LOAD,
    Closed,
    Images,
    Length,
    Open,
    Python,
    Rows,
    Tensor,
    Workload,
    mlp_id,
)

ANCHOR = "in-process"
LEAST_RATE_PER_S = 1.0


def requests_per_s(result: dict) -> float:
    return result.get("requests_per_s", 0.0)


def anchor(site: Site, model: str) -> Target:
    """The call without a server: ONNX Runtime in the client."""
    address = f"in-process:{site.model_file(model)}"
    return Target(ANCHOR, "", address, server="", python=ANCHOR)


@dataclass
class Measurer:
    fleet: Fleet
    results: Results
    python_clients: Callable[[Target], str]
    """Why a target cannot be called from Python, or nothing."""

    @property
    def site(self) -> Site:
        return self.fleet.site

    @property
    def loadgen(self) -> Loadgen:
        return Loadgen(self.site)

    def measure(self, work: Workload) -> None:
        match work:
            case Closed():
                self.closed(work)
            case Images():
                self.images(work)
            case Open():
                self.open(work)
            case Rows():
                self.rows(work)
            case Python():
                self.python(work)

    def closed(self, work: Closed) -> None:
        targets = self.targets(work.tensor.model, work.batching)
        self.compare_all(
            work, targets, work.clients, work.length, work.untouched, pipeline=work.pipeline
        )
        if work.pipeline > 1:
            return
        for peer in self.fleet.available():
            self.compare_on_demand(peer, work)

    def images(self, work: Images) -> None:
        """A number of images, as the time that the call in-process takes for them."""
        one = Tensor(work.tensor.model, work.tensor.dtype, (1, *work.tensor.shape[1:]))
        first = anchor(self.site, one.model)
        try:
            said = self.loadgen.compare([Caller(first, 1)], one, Length(1, 500), untouched=True)
        except Unavailable as problem:
            self.results.add(work.id, first, None, str(problem))
            return
        requests = math.ceil(work.images / work.tensor.rows / work.rounds)
        request_ms = said[ANCHOR]["p50_us"] / 1000 * work.tensor.rows
        length = Length(work.rounds, math.ceil(requests * request_ms))
        targets = [t for t in self.targets(one.model, batching=False) if not t.second]
        # Large batches take seconds: answers are looked at with one image.
        self.compare_all(work, targets, 1, length, untouched=True, probe=one)

    def targets(self, model: str, batching: bool) -> list[Target]:
        return [
            target for peer in self.fleet.available() for target in peer.targets(model, batching)
        ]

    def compare_all(
        self,
        work: Closed | Images,
        targets: list[Target],
        clients: int,
        length: Length,
        untouched: bool,
        probe: Tensor | None = None,
        pipeline: int = 1,
    ) -> None:
        """Compares the targets in their companies, each in turn with the call in-process."""
        missing = [target for target in targets if not self.results.has(work.id, target)]
        for company in self.fleet.companies(missing):
            with self.fleet.awake(company):
                callers = [
                    Caller(t, clients, self.fleet.pids(t), pipeline=pipeline) for t in company
                ]
                if probe:
                    callers = self.sound(work.id, callers, probe)
                first = Caller(anchor(self.site, work.tensor.model), clients)
                self.compare(work.id, first, callers, work.tensor, length, untouched, probe)

    def compare_on_demand(self, peer: Peer, work: Closed) -> None:
        try:
            with peer.on_demand(work.tensor) as served:
                if served is None or self.results.has(work.id, served[1]):
                    return
                server, target = served
                callers = [Caller(target, work.clients, (server.pid,))]
                first = Caller(anchor(self.site, work.tensor.model), work.clients)
                self.compare(work.id, first, callers, work.tensor, work.length, work.untouched)
        except Unavailable as problem:
            target = Target(peer.name, "shared memory", "", peer.name)
            self.results.add(work.id, target, None, str(problem))

    def compare(
        self,
        workload: str,
        first: Caller,
        callers: list[Caller],
        tensor: Tensor,
        length: Length,
        untouched: bool,
        probe: Tensor | None = None,
    ) -> None:
        """One comparison with the first. Those that fail alone are left out of a second try.

        With a `probe`, that is what they are tried with alone, and answers are not looked at here.
        """
        verify = probe is None
        try:
            said = self.loadgen.compare([first, *callers], tensor, length, untouched, verify)
        except Unavailable:
            callers = self.sound(workload, callers, probe or tensor)
            try:
                said = self.loadgen.compare([first, *callers], tensor, length, untouched, verify)
            except Unavailable as problem:
                # Nobody fails alone: it is not known who it was.
                for caller in (first, *callers):
                    self.results.add(workload, caller.target, None, str(problem))
                return
        base = said[ANCHOR]
        if not self.results.has(workload, first.target):
            self.results.add(workload, first.target, base)
        for caller in callers:
            result = said[caller.target.label]
            result["in_process_p50_us"] = base["p50_us"]
            result["in_process_requests_per_s"] = base["requests_per_s"]
            self.results.add(workload, caller.target, result)

    def sound(self, workload: str, callers: list[Caller], tensor: Tensor) -> list[Caller]:
        """The callers that work alone. What is wrong with others goes into the results."""
        sound = []
        for caller in callers:
            try:
                self.loadgen.probe(caller, tensor)
                sound.append(caller)
            except Unavailable as problem:
                self.results.add(workload, caller.target, None, str(problem))
        return sound

    def rows(self, work: Rows) -> None:
        """What the engine does alone with batches as large as the server made them."""
        target = next(t for t in self.targets(work.tensor.model, False) if t.python == "adjoin")
        measured = self.results.result(work.batch_of, target)
        if measured is None or self.results.has(work.id, target):
            return
        rows = max(1, round(measured.get("mean_batch_rows", 1)))
        batch = Tensor(work.tensor.model, work.tensor.dtype, (rows, *work.tensor.shape[1:]))
        callers = [
            Caller(anchor(self.site, work.tensor.model), 1, tensor=batch),
            Caller(target, work.clients, self.fleet.pids(target)),
        ]
        try:
            said = self.loadgen.compare(callers, work.tensor, work.length, untouched=False)
        except Unavailable as problem:
            self.results.add(work.id, target, None, str(problem))
            return
        for caller, rows_each in zip(callers, (rows, 1), strict=True):
            result = said[caller.target.label]
            result["rows_per_s"] = result["requests_per_s"] * rows_each
            self.results.add(work.id, caller.target, result)

    def open(self, work: Open) -> None:
        """Each target at a rate of its own, under the setting that took the most requests.

        The call in-process and adjoin get no more than the fastest of the others: what they could take, the
        generator cannot make one by one on the same processors, and then the generator is what is measured.
        """
        model = work.tensor.model
        measured = [anchor(self.site, model), *self.targets(model, work.batching)]
        capacities = {t: self.results.result(work.capacity_of, t) for t in measured}
        rates = {
            target: max(LOAD * requests_per_s(capacities[target] or {}), LEAST_RATE_PER_S)
            for target in best(capacities, requests_per_s)
        }
        others = [rate for target, rate in rates.items() if target.peer not in (ANCHOR, "adjoin")]
        if others:
            rates = {
                target: rate if target.peer not in (ANCHOR, "adjoin") else min(rate, max(others))
                for target, rate in rates.items()
            }
        first = measured[0]
        if first not in rates:
            self.results.add(work.id, first, None, f"no capacity to go by: {work.capacity_of}")
            return
        chosen = [t for t in rates if t != first and not self.results.has(work.id, t)]
        for company in self.fleet.companies(chosen):
            with self.fleet.awake(company):
                first_caller, *callers = (
                    Caller(t, CLIENTS_OPEN, self.fleet.pids(t), rate_per_s=rates[t])
                    for t in (first, *company)
                )
                self.compare(work.id, first_caller, callers, work.tensor, work.length, False)

    def python(self, work: Python) -> None:
        model = work.tensor.model
        targets = [t for t in self.targets(model, work.batching) if t.python]
        if work.batching:
            native = {t: self.results.result(mlp_id(work.clients), t) for t in targets}
            targets = best(native, requests_per_s)
        reachable = []
        for target in targets:
            reason = self.python_clients(target)
            if reason:
                self.results.add(work.id, target, None, reason)
            elif not self.results.has(work.id, target):
                reachable.append(target)
        for company in self.fleet.companies(reachable):
            with self.fleet.awake(company), self.drivers(work, company) as drivers:
                self.python_rounds(work, drivers)

    @contextmanager
    def drivers(self, work: Python, targets: list[Target]) -> Iterator[list[PythonClients]]:
        """Clients of the call in-process and of each target that can be reached."""
        with ExitStack() as stack:
            drivers = []
            for target in (anchor(self.site, work.tensor.model), *targets):
                drivers.append(PythonClients(self.site, target, work.tensor, work.clients))
                stack.callback(drivers[-1].close)
            ready = []
            for driver in drivers:
                try:
                    driver.wait_ready()
                    ready.append(driver)
                except Unavailable as problem:
                    self.results.add(work.id, driver.target, None, str(problem))
            yield ready

    def python_rounds(self, work: Python, drivers: list[PythonClients]) -> None:
        phases: dict[Target, list[dict]] = {driver.target: [] for driver in drivers}
        failed: dict[Target, str] = {}
        for _ in range(work.length.rounds):
            for driver in drivers:
                if driver.target in failed:
                    continue
                try:
                    phases[driver.target].append(driver.phase(work.length.phase_ms / 1000))
                except Unavailable as problem:
                    failed[driver.target] = str(problem)
        base = next((p for t, p in phases.items() if t.peer == ANCHOR and p), None)
        for target, parts in phases.items():
            if target in failed:
                self.results.add(work.id, target, None, failed[target])
            elif target.peer != ANCHOR or not self.results.has(work.id, target):
                self.results.add(work.id, target, merge_phases(parts, base))
