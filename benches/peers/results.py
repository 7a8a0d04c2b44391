"""The results of a run: kept in a journal while it goes on, so that it can be resumed, then
published.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from .peer import Target
from .problems import Problem

FORMAT = 1


@dataclass
class Results:
    """Everything that is published, in the form of the JSON file."""

    header: dict
    """Form, machine, versions, settings: what must be equal for a run to be resumed is under
    `settings`.
    """
    peers: list[dict] = field(default_factory=list)
    rows: list[dict] = field(default_factory=list)
    partial: bool = True

    def document(self) -> dict:
        return {
            "format": FORMAT,
            "partial": self.partial,
            **self.header,
            "peers": self.peers,
            "rows": self.rows,
        }

    def save(self, path: Path) -> None:
        write_atomically(path, as_text(self.document()))

    def has(self, workload: str, target: Target) -> bool:
        wanted = (workload, target.peer, target.way, target.setting)
        return any(key(row) == wanted for row in self.rows)

    def add(self, workload: str, target: Target, result: dict | None, error: str = "") -> None:
        row: dict = {
            "workload": workload,
            "peer": target.peer,
            "way": target.way,
            "setting": target.setting,
        }
        row |= {"error": error} if error else {"result": result}
        self.rows.append(row)

    def result(self, workload: str, target: Target) -> dict | None:
        for row in self.rows:
            if key(row) == (workload, target.peer, target.way, target.setting):
                return row.get("result")
        return None


def key(row: dict) -> tuple[str, str, str, str]:
    return row["workload"], row["peer"], row["way"], row["setting"]


def resume(journal: Path, header: dict) -> Results:
    """The results of the run that was interrupted, if it was one of the same kind."""
    try:
        document = json.loads(journal.read_text())
    except FileNotFoundError:
        raise Problem(f"there is no interrupted run to resume: {journal} is not there") from None
    except (OSError, ValueError) as problem:
        raise Problem(f"{journal} cannot be read ({problem}); start without --resume") from None
    then, now = document.get("settings", {}), header["settings"]
    different = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
    if document.get("format") != FORMAT or different:
        raise Problem(
            f"the interrupted run in {journal} had other settings ({', '.join(different)}); "
            "give the same, or start without --resume"
        )
    results = Results(header)
    # What failed is tried again.
    results.rows = [row for row in document["rows"] if "error" not in row]
    return results


def as_text(document: dict) -> str:
    """JSON with a line for each row: readable, and small in a diff."""
    rest = {key: value for key, value in document.items() if key != "rows"}
    rows = ",\n".join(json.dumps(row) for row in document["rows"])
    return json.dumps(rest, indent=1)[:-2] + f',\n "rows": [\n{rows}\n ]\n}}\n'


def load(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as problem:
        raise Problem(f"cannot read results from {path}: {problem}") from None


def write_atomically(path: Path, text: str) -> None:
    """Writes beside the file and renames: nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(text)
        beside.replace(path)
    except OSError as problem:
        beside.unlink(missing_ok=True)
        raise Problem(f"cannot write {path}: {problem.strerror}") from None
