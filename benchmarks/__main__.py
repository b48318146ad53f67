"""``python -m benchmarks [workload ...]``: measure, print tables, write JSON."""

from __future__ import annotations

import argparse
import compileall
import contextlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import benchmarks
import sqlitereplica
from benchmarks.context import Context
from benchmarks.report import Row, table, write_json
from benchmarks.systems import SYSTEMS
from benchmarks.workloads import GROUPS, WORKLOADS


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    compile_ours()
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="bench-", dir=args.folder)
        folder = stack.enter_context(temporary)
        sizes = {k: getattr(args, k) for k in ("size", "seconds", "many", "files")}
        context = stack.enter_context(Context(Path(folder), **sizes))
        rows = []
        for row in measure(args.workloads, args.systems, args.rounds, context):
            rows.append(row)
            note = ", ".join(f"{k} {v:.4g}" for k, v in row.figures.items())
            what = f"{row.workload} [{row.case}] {row.system}: {note}"
            print(what, file=sys.stderr, flush=True)
            if args.json:
                write_json(args.json, rows, about(args))
    print(table(rows))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    names = [*WORKLOADS, *GROUPS]
    add("workloads", nargs="*", help=f"of {', '.join(names)}; default all")
    add("--json", type=Path, help="write every figure to this file")
    add("--size", type=float, default=256, help="MiB of the large database")
    add("--seconds", type=float, default=5, help="how long writers write")
    add("--rounds", type=int, default=3, help="times that all is measured")
    add("--many", type=int, default=100, help="databases where there are many")
    add("--files", type=int, default=500, help="files in a long replica")
    add("--systems", default="none,litestream,ours", help="comma-separated")
    add("--folder", type=Path, help="where data go; default the temporary folder")
    args = parser.parse_args(arguments)
    for name in args.workloads:
        if name not in names:
            parser.error(f"no workload {name!r}: choose of {', '.join(names)}")
    asked = args.workloads or WORKLOADS
    args.workloads = [w for name in asked for w in GROUPS.get(name, (name,))]
    args.systems = args.systems.split(",")
    return args


def compile_ours() -> None:
    """Have our bytecode on disk, where installing puts it.

    Else each process that is measured may compile the package anew: from a checkout with
    ``PYTHONDONTWRITEBYTECODE`` that is half of its start.
    """
    for package in (benchmarks, sqlitereplica):
        compileall.compile_dir(package.__path__[0], quiet=1)


def measure(
    workloads: Sequence[str], systems: Sequence[str], rounds: int, context: Context
) -> Iterator[Row]:
    """Every system in turn within a round, so that noise meets all of them."""
    for name in workloads:
        for number in range(rounds):
            for system in systems:
                found = WORKLOADS[name](SYSTEMS[system], context)
                for case, figures in found.items():
                    yield Row(name, case, system, number, figures)


def about(args: argparse.Namespace) -> dict[str, object]:
    """When, with what and on what."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": [SYSTEMS[name].version() for name in args.systems],
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.release()}",
        "size_mib": args.size,
        "seconds": args.seconds,
        "rounds": args.rounds,
    }


if __name__ == "__main__":
    main()
