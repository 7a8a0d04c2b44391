"""What the figures of a run say of the goals: the numbers that issue and README name, with what was reached.

A goal whose steps were not taken is not there; one that is missed is said to be.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from .steps import Result

LARGE_BYTES = 4 << 20
BATCH_BYTES_EACH = 588 << 10
MODEL = "graphs on"
# Of a batch.
ROWS_MAX = 32


@dataclass(frozen=True)
class Goal:
    """A number to reach."""

    what: str
    wanted: str
    reached: str
    is_reached: bool


def of(results: list[Result]) -> list[Goal]:
    """The goals that a run says something of."""
    figures = {result.name: result.figures for result in results if result.figures}
    found = [*copies(figures), *gathers(figures), *processors(figures), *latencies(figures), *throughputs(figures), *pixels(figures)]
    return found


def copies(figures: dict) -> Iterator[Goal]:
    shares = [row["registered_of_pinned"] for row in sizes(figures, "copies by size") if row["bytes"] >= LARGE_BYTES]
    if shares:
        least = min(shares)
        yield Goal("speed of copies of 4 MiB and more, of pinned memory's", ">= 95 %", f"{least:.1%}", least >= 0.95)


def gathers(figures: dict) -> Iterator[Goal]:
    for row in sizes(figures, "gather of 32 sessions"):
        if row["bytes_each"] == BATCH_BYTES_EACH:
            forms = [row[f"{form}_us"] for form in ("copies", "batched", "kernel") if f"{form}_us" in row]
            ratio = min(forms) / row["one_copy_us"]
            yield Goal("batch of 32 sessions, 588 KiB each, beside one copy", "<= 1.1x", f"{ratio:.2f}x", ratio <= 1.1)


def processors(figures: dict) -> Iterator[Goal]:
    moved = [variant["bytes"] for name in figures for variant in figures[name].get("variants", {}).values()]
    if moved:
        touched = sum(bytes_["staged"] + bytes_["pageable"] for bytes_ in moved)
        yield Goal("bytes of requests and answers copied by a processor", "0", str(touched), touched == 0)


def latencies(figures: dict) -> Iterator[Goal]:
    """What a request takes beyond the engine and the copy of its bytes."""
    rows = figures.get("nobody sleeps", {}).get("variants", {}).get(MODEL, {}).get("served", [])
    speeds = sizes(figures, "copies by size")
    for row in rows:
        alone = engine(figures, row["rows"])
        if alone is None or not speeds:
            continue
        copied = copy_us(speeds, row["rows"] * BATCH_BYTES_EACH)
        over = row["p50_us"] - alone["p50_us"] - copied
        what = f"ResNet-50, {row['rows']} rows: latency beyond the engine ({alone['p50_us']:.0f} us) and the copy ({copied:.0f} us)"
        yield Goal(what, "<= 50 us", f"{over:.0f} us", over <= 50)


def throughputs(figures: dict) -> Iterator[Goal]:
    served = figures.get("server", {})
    for row in served.get("variants", {}).get(MODEL, {}).get("served", []):
        # Both with as many rows at once as the clients have, or as the model takes.
        at_once = min(row["rows"] * row["pipeline"] * served["clients"], ROWS_MAX)
        alone = engine(figures, at_once)
        if alone is None:
            continue
        share = row["requests_per_s"] * row["rows"] / (alone["runs_per_s"] * at_once)
        requests = "a request" if row["pipeline"] == 1 else f"{row['pipeline']} requests"
        rows = f"{row['rows']} row{'s' * (row['rows'] > 1)}"
        what = f"ResNet-50, {served['clients']} clients with {requests} of {rows} under way: rows per second, of the engine's at {at_once}"
        yield Goal(what, ">= 95 %", f"{share:.1%}", share >= 0.95)


def pixels(figures: dict) -> Iterator[Goal]:
    variants = figures.get("pixels", {}).get("variants", {})
    if {"floats", "pixels"} <= set(variants):
        share = variants["pixels"]["bytes_per_row"] / variants["floats"]["bytes_per_row"]
        yield Goal("bytes of a row with pixels, of those with floats", "<= 26 %", f"{share:.1%}", share <= 0.26)


def engine(figures: dict, rows: int) -> dict | None:
    """The engine alone, with graphs, at so many rows."""
    measured = figures.get("engine alone", {}).get("engine", {}).get("graphs", [])
    return next((row["on_device"] for row in measured if row["rows"] == rows), None)


def copy_us(speeds: list[dict], byte_size: int) -> float:
    """How long the driver alone takes for a copy, by the measured size that is next to it."""
    nearest = min(speeds, key=lambda row: abs(row["bytes"] - byte_size))
    return byte_size / nearest["to_device_gbs"]["pinned_by_the_driver"] / 1e3


def sizes(figures: dict, step: str) -> list[dict]:
    return figures.get(step, {}).get("sizes", [])


def table(goals: list[Goal]) -> str:
    lines = [f"{'reached' if goal.is_reached else 'MISSED':8} {goal.what}: {goal.reached} (wanted {goal.wanted})" for goal in goals]
    return "\n".join(lines)
