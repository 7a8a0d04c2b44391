"""The results as Markdown."""

from collections.abc import Callable, Iterable

from .workloads import IMAGE_ROWS, MLP_CLIENTS, PAYLOAD_COLUMNS, images_id, mlp_id, payload_id

ANCHOR = "in-process"
# Part of the processors that others may have taken in a run to rely on.
QUIET_SHARE = 0.1
Key = tuple[str, str]
"""A line of a table: peer and way."""
Cell = Callable[[dict], str]


class Rows:
    """Rows of the results, looked up by workload, and by peer and way."""

    def __init__(self, document: dict) -> None:
        self.titles = {peer["name"]: peer["title"] for peer in document["peers"]}
        self._rows: dict[str, dict[Key, list[dict]]] = {}
        for row in document["rows"]:
            lines = self._rows.setdefault(row["workload"], {})
            lines.setdefault((row["peer"], row["way"]), []).append(row)

    def keys(self, workloads: Iterable[str]) -> list[Key]:
        """Lines that have something to say about any of these, the call in-process first."""
        found = dict.fromkeys(key for workload in workloads for key in self._rows.get(workload, {}))
        order = [ANCHOR, *self.titles]
        return sorted(found, key=lambda key: order.index(key[0]) if key[0] in order else len(order))

    def best(self, workload: str, key: Key, worth: Callable[[dict], float]) -> dict | None:
        """Of the settings of one line the one whose result is worth most; else an error."""
        rows = self._rows.get(workload, {}).get(key, [])
        good = [row for row in rows if "result" in row]
        if good:
            return max(good, key=lambda row: worth(row["result"]))
        return rows[0] if rows else None

    def name(self, key: Key) -> str:
        peer, way = key
        return " ".join((self.titles.get(peer, peer), f"({way})" if way else "")).strip()


def markdown(document: dict, plots: list[str]) -> str:
    rows = Rows(document)
    errors = Errors()
    parts = [
        heading(document),
        *(f"![{name.removesuffix('.svg')}]({name})\n" for name in plots),
        latency(rows, errors),
        throughput(rows, errors),
        same_batches(rows),
        full_hd(rows, errors),
        images(rows, errors, document["settings"]["images"]),
        open_loop(rows, errors),
        processor_time(rows, errors),
        python(rows, errors),
        peers(document),
        errors.list(),
    ]
    return "\n".join(part for part in parts if part)


class Errors:
    """Why there is no figure: numbered, and listed below the tables."""

    def __init__(self) -> None:
        self._reasons: dict[str, int] = {}

    def mark(self, reason: str) -> str:
        return f"– [{self._reasons.setdefault(reason, len(self._reasons) + 1)}]"

    def list(self) -> str:
        if not self._reasons:
            return ""
        lines = (f"{number}. {reason}" for reason, number in self._reasons.items())
        return "## Not measured\n\n" + "\n".join(lines) + "\n"


def heading(document: dict) -> str:
    machine, settings = document["machine"], document["settings"]
    partial = (
        "**Partial: the run was interrupted, or is not finished.**\n\n"
        if document["partial"]
        else ""
    )
    busy = max(
        (
            row["result"].get("other_processes_share", 0)
            for row in document["rows"]
            if "result" in row
        ),
        default=0,
    )
    others = (
        f"**The machine was not quiet: others took up to {busy:.0%} of it. Do not rely on these "
        "figures.**\n\n"
        if busy > QUIET_SHARE
        else ""
    )
    threads = f"{settings['threads']} thread{'s' if settings['threads'] > 1 else ''}"
    return (
        "# adjoin beside other servers\n\n"
        f"{partial}{others}"
        f"`{document['command']}`, {document['date']}, commit {document['commit'] or 'unknown'}: "
        f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB, "
        f"{machine['kernel']}, Python {machine['python']}. {settings['engine']} everywhere, "
        f"{threads} for an operator, its spinning off. All on loopback, clients are native "
        "processes of adjoin-loadgen unless it says Python; answers were compared with the "
        "model's. How it is measured, how each peer is set up, and what is unfair: "
        "[benches/peers/README.md](../peers/README.md).\n"
    )


def table(header: list[str], lines: Iterable[list[str]]) -> str:
    text = "| " + " | ".join(header) + " |\n|" + "---|" * len(header) + "\n"
    return text + "".join("| " + " | ".join(line) + " |\n" for line in lines)


def cells(
    rows: Rows,
    errors: Errors,
    key: Key,
    workloads: Iterable[str],
    worth: Callable[[dict], float],
    cell: Cell,
) -> list[str]:
    """One cell for each workload: of the best setting, or the mark of what went wrong."""
    line = []
    for workload in workloads:
        row = rows.best(workload, key, worth)
        if row is None:
            line.append("")
        elif "error" in row:
            line.append(errors.mark(row["error"]))
        else:
            line.append(cell(row["result"]) + setting(row))
    return line


def setting(row: dict) -> str:
    return f" ({row['setting']})" if row["setting"] else ""


def quick(result: dict) -> float:
    return -result["p50_us"]


def many(result: dict) -> float:
    return result["requests_per_s"]


def time(us: float) -> str:
    if us >= 100_000:
        return f"{us / 1000:,.0f} ms"
    if us >= 10_000:
        return f"{us / 1000:.1f} ms"
    return f"{us:,.0f} µs" if us >= 100 else f"{us:.1f} µs"


def rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.1f}"


def ratio(result: dict) -> str:
    """How many times the call in-process it takes, paired by rounds."""
    paired = result.get("paired_p50_ratio", {}).get("median")
    if paired is None:
        return ""
    return f"{paired:.2f}×" if paired < 100 else f"{paired:,.0f}×"


def latency(rows: Rows, errors: Errors) -> str:
    work = [*(payload_id(*column) for column in PAYLOAD_COLUMNS), mlp_id(1)]

    def cell(result: dict) -> str:
        factor = ratio(result)
        return time(result["p50_us"]) + (f", {factor}" if factor else "")

    header = ["one client, p50, times in-process"]
    header += [payload_id(*column).removeprefix("identity ") for column in PAYLOAD_COLUMNS]
    lines = (
        [rows.name(key), *cells(rows, errors, key, work, quick, cell)] for key in rows.keys(work)
    )
    return (
        "## Latency\n\nAn identity of each size, and the MLP 128-256-10. In place: the input was "
        "written once; rewritten: anew before each request, outside of the clock.\n\n"
        + table([*header, "MLP"], lines)
    )


def throughput(rows: Rows, errors: Errors) -> str:
    work = [mlp_id(clients) for clients in MLP_CLIENTS]
    header = ["MLP, requests/s (p50)"]
    header += [f"{clients} client{'s' if clients > 1 else ''}" for clients in MLP_CLIENTS]

    def cell(result: dict) -> str:
        return f"{rate(result['requests_per_s'])} ({time(result['p50_us'])})"

    lines = (
        [rows.name(key), *cells(rows, errors, key, work, many, cell)] for key in rows.keys(work)
    )
    return (
        "## Throughput\n\nClosed loop, a process for each client. Of the settings of a server the "
        "one with the most requests is shown, in brackets.\n\n" + table(header, lines)
    )


def same_batches(rows: Rows) -> str:
    """What is left of the engine's rows per second behind the server."""
    workload = "mlp 16 rows"
    found = {}
    for key in rows.keys([workload]):
        row = rows.best(workload, key, many)
        if row and "result" in row:
            found[key[0]] = row["result"]
    if ANCHOR not in found or "adjoin" not in found:
        return ""
    base, through = found[ANCHOR]["rows_per_s"], found["adjoin"]["rows_per_s"]
    batch = found["adjoin"].get("mean_batch_rows", 1)
    return (
        f"16 clients of adjoin got {rate(through)} rows/s in batches of {batch:.1f} on average; "
        f"one process that calls the engine on batches of {max(1, round(batch))} gets "
        f"{rate(base)}: {through / base:.2f} times.\n"
    )


def full_hd(rows: Rows, errors: Errors) -> str:
    work = ["fullhd in place", "fullhd rewritten"]

    def cell(result: dict) -> str:
        return f"{rate(result['requests_per_s'])} ({time(result['p50_us'])})"

    lines = (
        [rows.name(key), *cells(rows, errors, key, work, many, cell)] for key in rows.keys(work)
    )
    return (
        "## A light model on full-HD pictures\n\n5.9 MiB of bytes a picture, of which the model "
        "takes every 15th pixel of every 15th row: the way there is the cost.\n\n"
        + table(["1 client, pictures/s (p50)", "in place", "rewritten"], lines)
    )


def images(rows: Rows, errors: Errors, count: int) -> str:
    work = [images_id(size) for size in IMAGE_ROWS]
    lines = []
    for key in rows.keys(work):
        line = [rows.name(key)]
        for size in IMAGE_ROWS:

            def cell(result: dict, size: int = size) -> str:
                per_s = result["requests_per_s"] * size
                tax = result.get("paired_p50_ratio", {}).get("median")
                shown = f", {tax - 1:+.1%}" if tax else ""
                return f"{per_s:.2f} ({count / per_s:,.1f} s{shown})"

            line += cells(rows, errors, key, [images_id(size)], many, cell)
        lines.append(line)
    header = ["images/s (seconds for N, against in-process)"]
    return (
        f"## ResNet50\n\nfp32, 224×224, N = {count} images, made once and sent again and again. "
        "Seconds follow from the images that were counted. The model dominates here.\n\n"
        + table(header + [f"batch {size}" for size in IMAGE_ROWS], lines)
    )


def open_loop(rows: Rows, errors: Errors) -> str:
    work = ["mlp open", "identity open"]

    def cell(result: dict) -> str:
        return (
            f"{time(result['p99_us'])} / {time(result['p999_us'])} at "
            f"{rate(result['rate_per_s'])}/s, n = {result['requests']:,}"
        )

    lines = (
        [rows.name(key), *cells(rows, errors, key, work, quick, cell)] for key in rows.keys(work)
    )
    return (
        "## Open loop\n\nPoisson arrivals at 70 % of what each server did with 64 requests under "
        "way, so at rates of their own; the call in-process and adjoin at no more than the highest of the "
        "others' rates, because the generator shares the processors. p99.9 of few requests is one of the "
        "largest.\n\n"
        + table(["p99 / p99.9", "MLP, 4 clients", "identity of 588 KiB, 4 clients"], lines)
    )


def processor_time(rows: Rows, errors: Errors) -> str:
    work = [mlp_id(16), "identity saturated"]

    def cell(result: dict) -> str:
        server = result.get("server_cpu_us_per_request")
        client = result["client_cpu_us_per_request"]
        if server is None:
            return f"– + {client:,.1f}"
        return f"{server:,.1f} + {client:,.1f} = {server + client:,.1f}"

    lines = (
        [rows.name(key), *cells(rows, errors, key, work, many, cell)] for key in rows.keys(work)
    )
    return "## Processor time of a request\n\n" + table(
        ["µs, server + client", "MLP, 16 clients", "identity of 588 KiB, 64 under way"], lines
    )


def python(rows: Rows, errors: Errors) -> str:
    latencies = ["python mlp 1", "python identity", "python fullhd"]
    parallel = "python mlp 16"

    def cell(result: dict) -> str:
        return time(result["p50_us"])

    def cell_parallel(result: dict) -> str:
        return rate(result["requests_per_s"])

    lines = (
        [
            rows.name(key),
            *cells(rows, errors, key, latencies[:1], quick, cell),
            *cells(rows, errors, key, [parallel], many, cell_parallel),
            *cells(rows, errors, key, latencies[1:], quick, cell),
        ]
        for key in rows.keys([*latencies, parallel])
    )
    header = ["Python clients", "MLP, 1 client, p50", "MLP, 16 clients, requests/s"]
    header += ["588 KiB in place, p50", "full-HD picture in place, p50"]
    return (
        "## From Python\n\ntritonclient, http.client with msgpack, and adjoin's own package; a "
        "process for each client.\n\n" + table(header, lines)
    )


def peers(document: dict) -> str:
    lines = []
    for peer in document["peers"]:
        state = peer["state"] + (f": {peer['reason']}" if peer["reason"] else "")
        idle = [f"{share:.0%} of a core idly" for share in peer["idle_processor_share"].values()]
        lines.append([peer["title"], peer["version"], state, "; ".join([*peer["settings"], *idle])])
    return "## Peers\n\n" + table(["", "version", "", "how it is set up"], lines)
