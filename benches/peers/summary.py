"""Arithmetic on what was measured: medians, the best of several settings, merged histograms."""

from collections.abc import Callable
from statistics import median

from .peer import Target


def best(measured: dict[Target, dict | None], worth: Callable[[dict], float]) -> list[Target]:
    """Of the targets that differ in nothing but the setting, the one whose result is worth most."""
    chosen: dict[tuple[str, str], Target] = {}
    for target, result in measured.items():
        if result is None:
            continue
        key = (target.peer, target.way)
        held = measured[chosen[key]] if key in chosen else None
        if held is None or worth(result) > worth(held):
            chosen[key] = target
    return list(chosen.values())


SUMMED = ("requests", "ok_in_time", "ok_late", "refused", "failed", "counted_s", "server_cpu_s")
PERCENTILES = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p999_us": 0.999}


def merge_histograms(parts: list[dict]) -> dict:
    """Several open loops at one rate as one: counts added, percentiles of all latencies."""
    histogram: dict[float, int] = {}
    for part in parts:
        for bound, count in part.pop("histogram_us"):
            histogram[bound] = histogram.get(bound, 0) + count
    merged = dict(parts[0])
    if len(parts) == 1:
        return merged
    for key in merged:
        values = [part[key] for part in parts if key in part]
        if key in SUMMED:
            merged[key] = sum(values)
        elif key in PERCENTILES:
            merged[key] = percentile(histogram, PERCENTILES[key])
        elif key.startswith("max_"):
            merged[key] = max(values)
        elif isinstance(merged[key], float):
            merged[key] = median(values)
    return merged


def percentile(histogram: dict[float, int], part: float) -> float:
    """The least bound under which at least this part of the counts lies."""
    wanted = part * sum(histogram.values())
    seen = 0
    for bound in sorted(histogram):
        seen += histogram[bound]
        if seen >= wanted:
            return bound
    return max(histogram)


def merge_phases(parts: list[dict], base: list[dict] | None) -> dict:
    """Phases of Python clients: medians, and that of the ratios to the same round in-process."""
    merged = {key: median(part[key] for part in parts) for key in parts[0]}
    merged["requests"] = sum(part["requests"] for part in parts)
    if base:
        merged["in_process_p50_us"] = median(part["p50_us"] for part in base)
        ratios = [part["p50_us"] / other["p50_us"] for part, other in zip(parts, base, strict=True)]
        merged["paired_p50_ratio"] = {"median": median(ratios), "rounds": len(ratios)}
    return merged
