"""Queries on a replica in place: ours, Litestream's VFS, and a local database.

Each is a process of its own that opens, asks one question, 1000 random ones by primary key,
and reads the large table from end to end. Their caches are those of default: 32 MiB of
ours, 10 MiB of Litestream. The local database is in the page cache of the system.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from benchmarks.context import Context, Figures
from benchmarks.measure import python, run
from benchmarks.systems import System
from benchmarks.workloads.restores import replicas

_DELAY = 0.01


def measure(system: System, context: Context) -> Mapping[str, Figures]:
    """On a folder, on S3, and on S3 whose requests take 10 ms longer."""
    if system.name == "none":
        figures = _query(system, str(context.large))
        return dict.fromkeys(("folder", "s3", f"s3, +{_DELAY * 1e3:g} ms"), figures)
    *_, (_, replica) = replicas(context)
    url = _uploaded(context, replica)
    found = {"folder": _query(system, replica.resolve().as_uri())}
    for delay in (0.0, _DELAY):
        with context.remote.delayed(delay):
            before = context.remote.requests
            figures = _query(system, url)
            asked = context.remote.requests - before
        case = f"s3, +{delay * 1e3:g} ms" if delay else "s3"
        found[case] = {**figures, "requests": asked}
    return found


def _query(system: System, where: str) -> Figures:
    done = run(python("querier", system.name, where), LITESTREAM_REPLICA_URL=where)
    figures: Figures = json.loads(done.printed.splitlines()[-1])
    return figures


def _uploaded(context: Context, replica: Path) -> str:
    """The replica in the store; put there once for all rounds."""
    if "reading" not in context.uploaded:
        context.remote.upload(replica, "reading")
        context.uploaded["reading"] = "reading"
    return context.remote.url("reading")
