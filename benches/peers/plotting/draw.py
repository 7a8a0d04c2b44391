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

# Letters become paths, so that every viewer shows the same; the same results give the same file.
matplotlib.rcParams.update(
    {"svg.fonttype": "path", "svg.hashsalt": "adjoin", "font.size": 9, "axes.axisbelow": True}
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


def order(panels: list[dict[str, dict]]) -> list[str]:
    """All lines of some panels, the slowest first, which is at the bottom of a chart."""
    names = {name for found in panels for name in found}

    def rank(name: str) -> float:
        places = [
            sorted(found.values(), key=lambda result: result["p50_us"]).index(found[name])
            for found in panels
            if name in found
        ]
        return sum(places) / len(places)

    return sorted(names, key=rank, reverse=True)


def panels(titles: list[str], names: list[str]) -> tuple[plt.Figure, list[Axes]]:
    """Charts side by side, over the same lines."""
    figure, axes = plt.subplots(
        1, len(titles), figsize=(10, 0.27 * len(names) + 1.1), layout="constrained", sharey=True
    )
    axes[0].set_yticks(range(len(names)), names)
    for axis, title in zip(axes, titles, strict=True):
        axis.set_xscale("log")
        axis.set_title(title, fontsize=10)
        axis.grid(axis="x", alpha=0.25)
    return figure, list(axes)


def latency(results: Results) -> plt.Figure | None:
    measured = [results.best(f"identity {size} in place", "p50_us", -1) for size in SIZES]
    names = order(measured)
    if not names:
        return None
    figure, axes = panels([f"identity of {size} in place" for size in SIZES], names)
    for axis, found in zip(axes, measured, strict=True):
        for place, name in enumerate(names):
            if name not in found:
                continue
            values = [found[name][key] for key, _ in PERCENTILES]
            axis.plot(values, [place] * len(values), "-", color=colour(name), linewidth=1)
            for (_, marker), value in zip(PERCENTILES, values, strict=True):
                axis.plot(value, place, marker, color=colour(name), markersize=6)
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
    apart = 1.3
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
    measured = []
    for name in work.values():
        found = results.best(name, "p50_us", -1)
        measured.append({n: r for n, r in found.items() if "paired_p50_ratio" in r})
    names = order(measured)
    if not names:
        return None
    figure, axes = panels(list(work), names)
    for axis, found in zip(axes, measured, strict=True):
        ratios = [found[n]["paired_p50_ratio"]["median"] if n in found else 0 for n in names]
        axis.barh(range(len(names)), ratios, color=[colour(name) for name in names])
        for place, value in enumerate(ratios):
            if value:
                text = f" {value:.2f}×" if value < 10 else f" {value:,.0f}×"
                axis.text(value, place, text, va="center", fontsize=8)
        axis.axvline(1, color=ANCHOR_COLOUR, linewidth=1)
        if max(ratios) < 3:
            axis.set_xscale("linear")
            axis.set_xlim(0, max(*ratios, 1) * 1.3)
        else:
            axis.set_xlim(0.5, max(ratios) * 8)
        axis.set_xlabel("times the call in-process, p50")
    return figure


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
