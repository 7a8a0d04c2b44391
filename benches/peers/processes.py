"""Servers as processes: started each in a session of its own, and ended with all that they started.

Some servers leave workers behind when they are told to end. So every process of a run carries a
mark in its environment, which its children inherit, and the clean-up looks for the mark, not for
parents. Marks of runs in one folder begin alike, so that the next run there can end what one left
that was killed.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .problems import Unavailable, one_line

MARK = "ADJOIN_PEERS_RUN"
GRACE_S = 10.0
POLL_S = 0.05

# Where shared memory with names lies. Names of a run begin with `segment_prefix`.
SHARED_MEMORY = Path("/dev/shm")


class Server:
    """A process group that serves, and its log."""

    def __init__(
        self,
        name: str,
        command: Sequence[object],
        mark: str,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        end_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = log
        self._end_signal = end_signal
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            try:
                self._process = subprocess.Popen(
                    [str(part) for part in command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(environment or {}), MARK: mark},
                    cwd=folder,
                    start_new_session=True,
                )
            except OSError as problem:
                raise Unavailable(f"cannot start {command[0]}: {problem.strerror}") from None

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Waits until `ready` says so. If it never does, the server is ended."""
        end = time.monotonic() + timeout_s
        while not ready():
            status = self._process.poll()
            if status is None and time.monotonic() < end:
                time.sleep(POLL_S)
                continue
            self.stop()
            what = (
                f"was not ready within {timeout_s:.0f} s" if status is None else f"ended ({status})"
            )
            raise Unavailable(f"{self.name} {what}: {self.last_words()}")

    def last_words(self) -> str:
        """The last line of the log that says anything."""
        lines = self.log.read_text(errors="replace").splitlines()
        said = [line for line in lines if line.strip()]
        return one_line(said[-1]) if said else "nothing in its log"

    def running(self) -> bool:
        return self._process.poll() is None

    def pause(self) -> None:
        """Stops all of its processes where they are, until `resume`."""
        self._signal_session(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_session(signal.SIGCONT)

    def processor_s(self) -> float:
        """Processor time that its processes have used."""
        return sum(ticks for pid, ticks in session(self.pid)) / os.sysconf("SC_CLK_TCK")

    def _signal_session(self, number: signal.Signals) -> None:
        for pid, _ in session(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """Asks it to end, and after a while makes it."""
        self.resume()
        if self.running():
            self._process.send_signal(self._end_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        kill(lambda: [pid for pid, _ in session(self.pid)])
        self._process.wait()


def folder_mark(home: Path) -> str:
    """How the marks of all runs in this folder begin."""
    return hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]


def session(leader: int) -> list[tuple[int, int]]:
    """Processes of a session, each with the ticks of processor time that it has used."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # Behind the name, which may hold anything, come state, parent, group, session.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append((int(entry.name), int(fields[11]) + int(fields[12])))
    return found


def marked(mark: str) -> list[int]:
    """Processes other than this one whose mark begins like this."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(variable.startswith(wanted) for variable in variables):
            found.append(int(entry.name))
    return found


def end_marked(mark: str) -> int:
    """Kills the processes whose mark begins like this; returns how many there were."""
    there = len(marked(mark))
    kill(lambda: marked(mark))
    return there


def kill(find: Callable[[], list[int]]) -> None:
    """Kills the processes that are found, until none is.

    Python's resource trackers come last: they end by themselves when those are gone that they track
    for, and remove the semaphores that these left.
    """
    end = time.monotonic() + GRACE_S
    while (left := find()) and time.monotonic() < end:
        others = [pid for pid in left if not is_tracker(pid)]
        trackers_are_late = time.monotonic() > end - GRACE_S / 2
        for pid in left if trackers_are_late else others:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def is_tracker(pid: int) -> bool:
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def segment_prefix(mark: str) -> str:
    return f"adjoin_peers_{mark}"


def segments(mark: str) -> list[Path]:
    """Named shared memory of runs whose mark begins like this."""
    return sorted(SHARED_MEMORY.glob(f"{segment_prefix(mark)}*"))


def scratch(mark: str) -> Path:
    """The folder for sockets and temporary files of the run with this mark."""
    return Path(tempfile.gettempdir()) / f"adjoin-peers-{mark}"


def remove_traces(mark: str) -> None:
    """Removes shared memory and temporary folders of runs whose mark begins like this."""
    for segment in segments(mark):
        segment.unlink(missing_ok=True)
    first = scratch(mark)
    for folder in first.parent.glob(f"{first.name}*"):
        shutil.rmtree(folder, ignore_errors=True)
