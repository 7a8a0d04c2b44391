"""Arithmetic on what was measured: medians, the best of several settings."""

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


def merge_phases(parts: list[dict], base: list[dict] | None) -> dict:
    """Phases of Python clients: medians, and that of the ratios to the same round in-process."""
    merged = {key: median(part[key] for part in parts) for key in parts[0]}
    merged["requests"] = sum(part["requests"] for part in parts)
    if base:
        merged["in_process_p50_us"] = median(part["p50_us"] for part in base)
        ratios = [part["p50_us"] / other["p50_us"] for part, other in zip(parts, base, strict=True)]
        merged["paired_p50_ratio"] = {"median": median(ratios), "rounds": len(ratios)}
    return merged
