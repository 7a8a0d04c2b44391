"""Writes what is shown: the JSON, the tables, the plots."""

import subprocess
from pathlib import Path

from . import install, results, tables
from .layout import PACKAGE, Layout
from .problems import Problem, Unavailable, one_line

JSON, MARKDOWN = "peers.json", "peers.md"
ENVIRONMENT = "plotting"


def publish(layout: Layout, source: Path, out: Path) -> None:
    """Writes all of it into the folder `out`, from results in the file `source`."""
    document = results.load(source)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise Problem(f"cannot make {out}: {problem.strerror}") from None
    results.write_atomically(out / JSON, results.as_text(document))
    plots = plot(layout, out)
    results.write_atomically(out / MARKDOWN, tables.markdown(document, plots))
    print(f"written: {', '.join(str(out / name) for name in (JSON, MARKDOWN, *plots))}")


def plot(layout: Layout, out: Path) -> list[str]:
    """Draws the plots with matplotlib in an environment of its own; returns their names."""
    folder = PACKAGE / "plotting"
    try:
        install.ensure(layout, ENVIRONMENT, folder / "requirements.txt")
    except Unavailable as problem:
        print(f"no plots: {problem}")
        return []
    drawn = subprocess.run(
        [layout.python(ENVIRONMENT), folder / "draw.py", out / JSON, out],
        capture_output=True,
        text=True,
        check=False,
    )
    if drawn.returncode != 0:
        raise Problem(f"cannot draw the plots: {one_line(drawn.stderr[-300:])}")
    return drawn.stdout.split()
