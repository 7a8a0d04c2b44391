"""The command line."""

import argparse
import shlex
import sys
from pathlib import Path

from . import publish, roster
from .layout import REPOSITORY, RESULTS, Layout
from .problems import Interrupted, Problem
from .run import Options, run
from .workloads import FORMS, SHORT

NAME = "bench-peers"


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    try:
        args.act(args)
        return 0
    except Problem as problem:
        print(f"{NAME}: {problem}", file=sys.stderr)
        return 1
    except Interrupted as end:
        return 128 + end.signal_number


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=NAME, description="Measures adjoin side by side with other inference servers."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_run(commands.add_parser("run", help="install, measure, write tables and plots"))
    add_report(commands.add_parser("report", help="write tables and plots again from peers.json"))
    return parser.parse_args(arguments)


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--home",
        type=Path,
        default=REPOSITORY / "target" / "peers",
        metavar="DIR",
        help="folder for everything that is installed and made (default: target/peers)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help="folder for peers.json, peers.md and the plots (default: benches/results)",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    release = REPOSITORY / "target" / "release"
    add_common(parser)
    parser.add_argument(
        "--form", choices=FORMS, default=SHORT.name, help="how long to measure (default: short)"
    )
    parser.add_argument(
        "--peers",
        metavar="A,B",
        help=f"only these, and adjoin (default: all: {','.join(roster.NAMES)})",
    )
    parser.add_argument(
        "--images",
        type=positive,
        metavar="N",
        help="images for ResNet50, as 32000 (default: "
        + ", ".join(f"{form.images} in the {form.name} form" for form in FORMS.values())
        + ")",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        default=1,
        metavar="N",
        help="threads of the engine for one operator, the same everywhere (default: 1)",
    )
    parser.add_argument(
        "--base-port",
        type=positive,
        default=18100,
        metavar="PORT",
        help=f"first of {10 * len(roster.NAMES)} ports of loopback (default: 18100)",
    )
    parser.add_argument(
        "--wheel", type=Path, metavar="FILE", help="wheel of the adjoin Python package to measure"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run that was interrupted"
    )
    parser.add_argument("--models", type=Path, default=REPOSITORY / "target" / "models")
    parser.add_argument("--adjoin", type=Path, default=release / "adjoin")
    parser.add_argument("--loadgen", type=Path, default=release / "adjoin-loadgen")
    parser.add_argument(
        "--onnxruntime",
        type=Path,
        default=REPOSITORY / "target" / "tools" / "onnxruntime" / "libonnxruntime.so",
    )
    parser.set_defaults(act=act_run)


def add_report(parser: argparse.ArgumentParser) -> None:
    add_common(parser)
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="results to show, also partial ones (default: peers.json in --out)",
    )
    parser.set_defaults(act=act_report)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def act_run(args: argparse.Namespace) -> None:
    shown = ["--form", args.form]
    shown += ["--peers", args.peers] if args.peers else []
    shown += ["--images", str(args.images)] if args.images else []
    shown += ["--threads", str(args.threads)]
    run(
        Options(
            home=args.home,
            out=args.out,
            models=args.models,
            adjoin=args.adjoin,
            loadgen=args.loadgen,
            onnxruntime=args.onnxruntime,
            form=FORMS[args.form],
            peers=args.peers,
            images=args.images,
            threads=args.threads,
            base_port=args.base_port,
            wheel=args.wheel,
            resume=args.resume,
            command=shlex.join([NAME, "run", *shown]),
        )
    )


def act_report(args: argparse.Namespace) -> None:
    source = args.source or args.out / publish.JSON
    publish.publish(Layout(args.home.resolve()), source, args.out)
