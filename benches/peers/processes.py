"""Servers as processes: started each in a session of its own, and ended with all that they started.

Some servers leave workers behind when they are told to end. So every process of a run carries a mark in
its environment, which its children inherit, and the clean-up looks for the mark, not for parents.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
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
        command: Sequence[str | Path],
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
        """Waits until `ready` says so."""
        end = time.monotonic() + timeout_s
        while not ready():
            if self._process.poll() is not None:
                raise Unavailable(
                    f"{self.name} ended with status {self._process.returncode}: {self.last_words()}"
                )
            if time.monotonic() > end:
                raise Unavailable(
                    f"{self.name} was not ready within {timeout_s:.0f} s: {self.last_words()}"
                )
            time.sleep(POLL_S)

    def last_words(self) -> str:
        """The last line of the log that says anything."""
        lines = self.log.read_text(errors="replace").splitlines()
        said = [line for line in lines if line.strip()]
        return one_line(said[-1]) if said else "nothing in its log"

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
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def stop(self) -> None:
        """Asks it to end, and after a while makes it."""
        self.resume()
        if self._process.poll() is None:
            self._process.send_signal(self._end_signal)
            try:
                self._process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()


def session(leader: int) -> list[tuple[int, int]]:
    """Processes of a session, each with the ticks of processor time that it has used."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # Behind the name of the program, which may hold anything, come state, parent, group, session.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            found.append((int(entry.name), int(fields[11]) + int(fields[12])))
    return found


def marked(mark: str | None = None) -> list[int]:
    """Processes that carry this mark, or any, other than this one."""
    wanted = f"{MARK}={mark}".encode() if mark else f"{MARK}=".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(v == wanted if mark else v.startswith(wanted) for v in variables):
            found.append(int(entry.name))
    return found


def end_marked(mark: str | None = None) -> int:
    """Kills the processes that carry this mark, or any; returns how many there were."""
    ended = 0
    for _ in range(100):
        left = marked(mark)
        if not left:
            break
        ended = max(ended, len(left))
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(POLL_S)
    return ended


def segment_prefix(mark: str) -> str:
    return f"adjoin_peers_{mark}"


def segments(mark: str) -> list[Path]:
    """Named shared memory of the run with this mark."""
    return sorted(SHARED_MEMORY.glob(f"{segment_prefix(mark)}*"))


def remove_segments(mark: str) -> None:
    for segment in segments(mark):
        segment.unlink(missing_ok=True)
