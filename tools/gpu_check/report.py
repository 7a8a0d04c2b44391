"""A run of all steps as JSON, and as a table for people."""

import datetime
import os
import platform

from . import goals
from .steps import Outcome, Result

FAKE = "FAKE DRIVER: nothing here was measured on a GPU"


def as_json(results: list[Result], command: list[str], is_fake: bool) -> dict:
    probe = next((r.figures for r in results if "devices" in r.figures), {})
    return {
        "fake": is_fake,
        "note": FAKE if is_fake else "",
        "command": " ".join(command),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "driver": probe.get("cuda", ""),
            "devices": [device["name"] for device in probe.get("devices", [])],
        },
        "goals": [] if is_fake else [vars(goal) for goal in goals.of(results)],
        "steps": [
            {
                "name": result.name,
                "outcome": result.outcome.value,
                "seconds": round(result.seconds, 2),
                "reason": result.reason,
                "figures": result.figures,
            }
            for result in results
        ],
    }


def processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
            return next(names, platform.machine())
    except OSError:
        return platform.machine()


def table(results: list[Result], is_fake: bool) -> str:
    rows = [(r.name, r.outcome.value, f"{r.seconds:.1f} s", r.reason or headline(r)) for r in results]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) + "  " + row[3] for row in rows]
    if is_fake:
        lines.insert(0, FAKE)
        lines.append(FAKE)
    else:
        lines += ["", goals.table(goals.of(results))]
    return "\n".join(line.rstrip() for line in lines)


def headline(result: Result) -> str:
    """The one figure of a step that people look for."""
    figures = result.figures
    sizes = figures.get("sizes", [])
    last = sizes[-1] if sizes else {}
    if "devices" in figures:
        return ", ".join(device["name"] for device in figures["devices"])
    if "register_us_per_mib" in last:
        return f"{last['register_us_per_mib']:.1f} us per MiB at {last['mebibytes']} MiB"
    if "to_device_gbs" in last:
        speeds = last["to_device_gbs"]
        return f"registered {speeds['registered']:.1f} of {speeds['pinned_by_the_driver']:.1f} GB/s"
    if "one_copy_us" in last:
        best, within = best_form(last, ""), best_form(last, "within_")
        others = f"one copy {last['one_copy_us']:.0f} us, processor {last['processor_us']:.0f} us"
        return f"{best:.0f} us, {others}, within the device {within:.0f} us"
    if "bytes_compared" in figures:
        return f"{figures['bytes_compared']} bytes as expected"
    if "deaths" in figures:
        return f"{figures['deaths']} clients killed, {figures['batches_after_a_death']} batches after"
    if "errors" in figures:
        return f"{figures['errors']} errors"
    if "answers_compared" in figures:
        return f"{figures['answers_compared']} answers, at most {figures['largest_relative_difference']:.1e} off"
    if "engine" in figures:
        runs = ", ".join(f"{row['rows']} rows {row['on_device']['p50_us']:.0f} us" for row in figures["engine"]["plain"])
        return f"release {figures['engine']['release']}: {runs}"
    if "variants" in figures:
        return "; ".join(f"{name}: {served(variant)}" for name, variant in figures["variants"].items())
    return ""


def best_form(row: dict, prefix: str) -> float:
    """The time of the quickest form of copy."""
    times = (row.get(f"{prefix}{form}_us") for form in ("copies", "batched", "kernel"))
    return min(time for time in times if time is not None)


def served(variant: dict) -> str:
    """What a served model gave, by rows of a request."""
    rows = ", ".join(f"{row['rows']} rows x {row['pipeline']} {row['requests_per_s']:.0f}/s" for row in variant["served"])
    moved = variant["bytes"]
    return f"{rows}, {moved['staged'] + moved['pageable']} of {sum(moved.values())} bytes by a processor"


def is_good(results: list[Result]) -> bool:
    """Whether nothing that was run failed. A goal that was missed is a figure, not a failure."""
    return all(result.outcome in (Outcome.PASSED, Outcome.SKIPPED) for result in results)
