"""Draws the plots of README from peers.json: `draw.py peers.json FOLDER`. Needs matplotlib.

Writes the names of the files to standard output.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

# Text stays text, and the same results give the same file.
matplotlib.rcParams.update(
    {"svg.fonttype": "none", "svg.hashsalt": "adjoin", "font.size": 9, "axes.axisbelow": True}
)

SIZES = ("4 KiB", "588 KiB", "18.4 MiB")
MLP_CLIENTS = (1, 4, 16)
PERCENTILES = (("p50_us", "o"), ("p90_us", "|"), ("p99_us", "|"), ("p999_us", "|"))
ANCHOR = "in-process"
ADJOIN_COLOUR, ANCHOR_COLOUR, OTHERS = "#c0392b", "#2c3e50", "#7f8c8d"


class Results:
    def __init__(self, document: dict) -> None:
        self.titles = {peer["name"]: peer["title"] for peer in document["peers"]}
        self.rows = [row for row in document["rows"] if "result" in row]

    def best(self, workload: str, key: str, sign: int) -> dict[str, dict]:
        """For each line its best result of a workload, by the name that it is shown with."""
        found: dict[str, dict] = {}
        for row in self.rows:
            if row["workload"] != workload:
                continue
            name, result = self.name(row), row["result"]
            if name not in found or sign * result[key] > sign * found[name][key]:
                found[name] = result
        return found

    def name(self, row: dict) -> str:
        title = self.titles.get(row["peer"], row["peer"])
        return f"{title}, {row['way']}" if row["way"] else title


def colour(name: str) -> str:
    if name == ANCHOR:
        return ANCHOR_COLOUR
    return ADJOIN_COLOUR if name.startswith("adjoin, shared") else OTHERS


def order(found: dict[str, dict]) -> list[str]:
    """Slowest at the bottom of a chart, which is drawn from below."""
    return sorted(found, key=lambda name: found[name]["p50_us"], reverse=True)


def latency(results: Results) -> plt.Figure | None:
    panels = [(size, results.best(f"identity {size} in place", "p50_us", -1)) for size in SIZES]
    if not any(found for _, found in panels):
        return None
    figure, axes = plt.subplots(1, len(SIZES), figsize=(13, 4.2), layout="constrained")
    for axis, (size, found) in zip(axes, panels, strict=True):
        names = order(found)
        for place, name in enumerate(names):
            values = [found[name][key] for key, _ in PERCENTILES if key in found[name]]
            axis.plot(values, [place] * len(values), "-", color=colour(name), linewidth=1)
            for (_, marker), value in zip(PERCENTILES, values, strict=False):
                axis.plot(value, place, marker, color=colour(name), markersize=6)
        finish(axis, names, f"identity of {size} in place")
        axis.set_xlabel("µs: p50 (dot), p90, p99, p99.9")
    return figure


def throughput(results: Results) -> plt.Figure | None:
    panels = {c: results.best(f"mlp {c}", "requests_per_s", 1) for c in MLP_CLIENTS}
    names = list(dict.fromkeys(name for found in panels.values() for name in found))
    if not names:
        return None
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name in names:
        points = [(c, panels[c][name]["requests_per_s"]) for c in panels if name in panels[c]]
        axis.plot(*zip(*points, strict=True), "o-", color=colour(name), linewidth=1.2)
    label_ends(axis, {n: panels[c][n]["requests_per_s"] for c in MLP_CLIENTS for n in panels[c]})
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlim(0.9, 90)
    axis.set_xticks(MLP_CLIENTS, [str(c) for c in MLP_CLIENTS])
    axis.set_xlabel("clients, each a process")
    axis.set_ylabel("requests/s")
    axis.set_title("MLP 128-256-10, closed loop, best setting of each server")
    axis.grid(axis="y", which="both", alpha=0.25)
    return figure


def label_ends(axis: Axes, ends: dict[str, float]) -> None:
    """Names at the right ends of the lines, moved apart where they would overlap."""
    apart = 1.22
    last = 0.0
    for name in sorted(ends, key=lambda name: ends[name]):
        height = max(ends[name], last * apart)
        axis.annotate(
            name,
            (MLP_CLIENTS[-1], ends[name]),
            (MLP_CLIENTS[-1] * 1.12, height),
            color=colour(name),
            fontsize=8,
            va="center",
        )
        last = height


def tax(results: Results) -> plt.Figure | None:
    work = {
        "588 KiB in place": "identity 588 KiB in place",
        "full-HD picture, light model": "fullhd in place",
        "ResNet50, batch 32": "resnet50 32",
    }
    panels = [(title, results.best(name, "p50_us", -1)) for title, name in work.items()]
    if not any(found for _, found in panels):
        return None
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 4.2), layout="constrained")
    for axis, (title, found) in zip(axes, panels, strict=True):
        found = {n: r for n, r in found.items() if "paired_p50_ratio" in r and n != ANCHOR}
        names = order(found)
        ratios = [found[name]["paired_p50_ratio"]["median"] for name in names]
        axis.barh(range(len(names)), ratios, color=[colour(name) for name in names])
        for place, value in enumerate(ratios):
            axis.text(
                value, place, f" {value:.2f}×" if value < 10 else f" {value:.0f}×", va="center"
            )
        axis.axvline(1, color=ANCHOR_COLOUR, linewidth=1)
        finish(axis, names, title)
        if ratios and max(ratios) < 10:
            axis.set_xscale("linear")
        axis.set_xlim(right=max(ratios, default=1) * (1.35 if max(ratios, default=1) < 10 else 4))
        axis.set_xlabel("times the call in-process, p50")
    return figure


def finish(axis: Axes, names: list[str], title: str) -> None:
    axis.set_yticks(range(len(names)), names)
    axis.set_xscale("log")
    axis.set_title(title)
    axis.grid(axis="x", alpha=0.25)


PLOTS = {
    "peers-latency.svg": latency,
    "peers-throughput.svg": throughput,
    "peers-tax.svg": tax,
}


def main() -> None:
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    results = Results(json.loads(source.read_text()))
    for name, draw in PLOTS.items():
        figure = draw(results)
        if figure is None:
            continue
        figure.savefig(folder / name, metadata={"Date": None})
        print(name)


if __name__ == "__main__":
    main()
