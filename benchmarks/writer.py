"""The application: a process that commits as fast as it can, at a pace, or in bulk.

Prints one line of JSON. ``--replica`` runs a Replicator in this very process.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import databases
from benchmarks.measure import percentile


def write_small(
    args: argparse.Namespace, connection: sqlite3.Connection
) -> dict[str, Any]:
    """One row a transaction, at ``--rate`` a second or flat out."""
    (number,) = connection.execute("select coalesce(max(id), 0) from t").fetchone()
    first = number + 1
    took, when = array.array("d"), array.array("d")
    clock, wall = time.perf_counter, time.time
    insert = "insert into t values(?, ?)"
    head, padding = databases.MAGIC, databases.PADDING
    begun, cpu = clock(), time.process_time()
    end = begun + args.seconds
    while (now := clock()) < end or not took:
        if args.rate:
            due = begun + len(took) / args.rate
            if due > now:
                time.sleep(due - now)
        number += 1
        value = head + number.to_bytes(8, "big") + padding
        start = clock()
        connection.execute(insert, (number, value))
        took.append(clock() - start)
        when.append(wall())
    spent, cpu = clock() - begun, time.process_time() - cpu
    if args.commits:
        Path(args.commits).write_bytes(when.tobytes())
    return {"first": first, "last": number, "cpu": cpu, **summary(took, spent)}


def write_bulk(
    args: argparse.Namespace, connection: sqlite3.Connection
) -> dict[str, Any]:
    """Large transactions up to ``--size`` MiB, and one row to look for."""
    took = array.array("d")
    begun, cpu = time.perf_counter(), time.process_time()
    batch = max(10, min(10_000, int(args.size * 100)))
    size = 0.0
    while size < args.size:
        size = min(args.size, size + max(1.0, args.size / 100))
        start = time.perf_counter()
        if databases.fill(connection, size, batch):
            took.append(time.perf_counter() - start)
    spent, cpu = time.perf_counter() - begun, time.process_time() - cpu
    last = databases.append_row(connection)
    return {"last": last, "cpu": cpu, **summary(took, spent)}


def summary(took: array.array[float], spent: float) -> dict[str, Any]:
    """Rate and latency of commits."""
    return {
        "ended": time.time(),
        "wall": spent,
        "commits": len(took),
        "rate": len(took) / spent,
        "p50_us": percentile(took, 0.5) * 1e6,
        "p99_us": percentile(took, 0.99) * 1e6,
        "worst_ms": max(took) * 1e3,
        "over_50_ms": sum(t > 0.05 for t in took),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["small", "bulk"])
    parser.add_argument("database", type=Path)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--size", type=float, default=64)
    parser.add_argument("--commits", help="file for the times of commits")
    parser.add_argument("--replica", help="replicate to this URL in this process")
    parser.add_argument("--interval", type=float, default=1.0)
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if args.replica:
            from sqlitereplica import Replicator

            replicator = Replicator(
                args.database, args.replica, sync_interval=args.interval
            )
            stack.enter_context(replicator)
            replicator.sync()
        connection = databases.connect(args.database)
        write = write_small if args.kind == "small" else write_bulk
        print(json.dumps(write(args, connection)), flush=True)
        # No close before the reader has looked: the last close checkpoints.
        sys.stdin.read()


if __name__ == "__main__":
    main()
