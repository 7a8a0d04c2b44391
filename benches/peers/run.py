"""One run from its start to the published results, and the clean-up however it ends."""

import datetime
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import install, machine, ports, publish, roster
from .fleet import MEASURED, NOT_ASKED, Fleet
from .layout import PACKAGE, Layout
from .lock import exclusive
from .measure import Measurer
from .peer import Peer, Site, Target
from .problems import Interrupted, Problem, Unavailable
from .processes import end_marked, folder_mark, remove_traces
from .pythonclients import ENVIRONMENT
from .results import Results, resume
from .workloads import MODELS, Form, plan

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    home: Path
    out: Path
    models: Path
    adjoin: Path
    loadgen: Path
    onnxruntime: Path
    form: Form
    peers: str | None
    images: int | None
    threads: int
    base_port: int
    wheel: Path | None
    resume: bool
    command: str


def run(options: Options) -> None:
    """Measures and publishes. Whatever happens, nothing that it started is left."""
    layout = Layout(options.home.resolve())
    with signals_as_exceptions(), exclusive(layout.lock):
        # What a run in this folder left that was killed.
        end_marked(folder_mark(layout.home))
        remove_traces(folder_mark(layout.home))
        shutil.rmtree(layout.run, ignore_errors=True)
        site = make_site(options, layout)
        peers = roster.make(site, roster.select(options.peers))
        header = make_header(options)
        results = resume(layout.journal, header) if options.resume else Results(header)
        ports.require_free(port for peer in peers for port in peer.ports())
        fleet = Fleet(site, peers)
        try:
            try:
                fleet.start()
                measure_all(options, fleet, results, layout.journal)
            finally:
                with signals_ignored():
                    fleet.stop()
                    shutil.rmtree(layout.run, ignore_errors=True)
        except Interrupted:
            say_where(results, layout.journal)
            raise
        results.partial = False
        results.save(layout.journal)
        publish.publish(layout, layout.journal, options.out)


def make_site(options: Options, layout: Layout) -> Site:
    site = Site(
        layout,
        options.models.resolve(),
        options.adjoin.resolve(),
        options.loadgen.resolve(),
        options.onnxruntime.resolve(),
        options.threads,
        options.base_port,
        mark=f"{folder_mark(layout.home)}-{os.getpid()}",
    )
    for model in MODELS:
        if not site.model_file(model).is_file():
            raise Problem(f"{site.model_file(model)} is not there; make it: make models")
    if not os.access(site.loadgen, os.X_OK):
        raise Problem(
            f"{site.loadgen} is not there; build it: cargo build --release -p adjoin-loadgen"
        )
    if not site.onnxruntime.is_file():
        raise Problem(f"{site.onnxruntime} is not there; fetch it: make tools")
    return site


def make_header(options: Options) -> dict:
    pinned = install.pins(PACKAGE / "clients" / "requirements.txt")
    return {
        "date": datetime.date.today().isoformat(),
        "command": options.command,
        "commit": machine.commit(),
        "machine": machine.facts(),
        # A run can be resumed with the same ones only.
        "settings": {
            "form": options.form.name,
            "peers": list(roster.select(options.peers)),
            "images": options.images or options.form.images,
            "threads": options.threads,
            "engine": f"onnxruntime {pinned['onnxruntime']}",
            "engine_spinning": False,
            "wheel": options.wheel.name if options.wheel else None,
        },
    }


def measure_all(options: Options, fleet: Fleet, results: Results, journal: Path) -> None:
    results.peers = [describe(fleet, peer) for peer in roster.make(fleet.site, roster.NAMES)]
    measurer = Measurer(fleet, results, python_clients(options, fleet.site))
    work = plan(options.form, options.images)
    results.header["workloads"] = [{"id": w.id, "title": w.title} for w in work]
    results.save(journal)
    begin = time.monotonic()
    for number, workload in enumerate(work, start=1):
        minutes, seconds = divmod(int(time.monotonic() - begin), 60)
        print(f"{minutes:02}:{seconds:02} {number}/{len(work)} {workload.title}", flush=True)
        measurer.measure(workload)
        results.save(journal)


def describe(fleet: Fleet, peer: Peer) -> dict:
    """What the results say of a peer, whether or not it was measured."""
    state, reason = fleet.states.get(peer.name, (NOT_ASKED, ""))
    notes = next((p.notes for p in fleet.peers if p.name == peer.name), [])
    restless = {name: share for name, share in fleet.restless.items() if name.startswith(peer.name)}
    return {
        "name": peer.name,
        "title": peer.title,
        "version": peer.version(),
        "state": state,
        "reason": reason,
        "settings": [*peer.settings, *notes],
        "idle_processor_share": restless if state == MEASURED else {},
    }


def python_clients(options: Options, site: Site) -> Callable[[Target], str]:
    """Says for a target why it cannot be called from Python, or nothing."""
    requirements = PACKAGE / "clients" / "requirements.txt"
    try:
        install.ensure(site.layout, ENVIRONMENT, requirements)
        missing = ""
    except Unavailable as problem:
        missing = str(problem)
    no_wheel = "no wheel of the adjoin package was given (--wheel)"
    if options.wheel and not missing:
        no_wheel = install.add_wheel(site.layout.python(ENVIRONMENT), options.wheel)

    def reason(target: Target) -> str:
        return missing or (no_wheel if target.python == "adjoin" else "")

    return reason


def say_where(results: Results, journal: Path) -> None:
    if results.rows:
        results.save(journal)
        print(
            f"interrupted: {len(results.rows)} results, marked partial, are in {journal}; "
            "go on with --resume",
            file=sys.stderr,
        )


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Ends the command in order, by an exception, when it is told to end."""

    def interrupt(number: int, frame: object) -> None:
        # A second one must not cut off the clean-up.
        for other in heeded:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    heeded = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    with handled(dict.fromkeys(heeded, interrupt)):
        yield


@contextmanager
def signals_ignored() -> Iterator[None]:
    """For the clean-up."""
    with handled(dict.fromkeys(ENDING, signal.SIG_IGN)):
        yield


@contextmanager
def handled(handlers: dict) -> Iterator[None]:
    """Handles signals like this, and afterwards as before."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
