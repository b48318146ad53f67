"""Replicators in a process of their own, for databases that another process writes.

Reads commands, one a line, and answers each with a line of JSON: ``sync``,
``commits N`` (time N small commits, each with a ``sync()``), ``requests``, ``snapshot``,
``compact``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

from benchmarks import databases
from sqlitereplica import Replica, Replicator
from sqlitereplica.store import LTXStore


class CountedReplica(Replica):
    """A replica that remembers its stores, to ask them what they requested."""

    stores: list[LTXStore] = []  # noqa: RUF012

    def open(self) -> LTXStore:
        store = super().open()
        self.stores.append(store)
        return store


def time_commits(replicator: Replicator, count: int) -> list[float]:
    """Seconds of ``sync()`` after each of some small commits from this process."""
    connection = databases.connect(Path(replicator.database))
    took = []
    for _ in range(count):
        databases.append_row(connection)
        begun = time.perf_counter()
        replicator.sync()
        took.append(time.perf_counter() - begun)
    connection.close()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="+", help="database=replica URL")
    parser.add_argument("--interval", type=float, default=1.0)
    parser.add_argument("--level", type=int, action="append", help="seconds; repeat")
    args = parser.parse_args()
    replicators = []
    replicate = partial(Replicator, sync_interval=args.interval)
    if args.level:
        replicate = partial(replicate, levels=[f"{s}s" for s in args.level])
    for pair in args.pairs:
        database, _, url = pair.partition("=")
        replica = CountedReplica(url)
        replicators.append(replicate(database, replica))
    with contextlib.ExitStack() as stack:
        for replicator in replicators:
            stack.enter_context(replicator)
        print(json.dumps("started"), flush=True)
        for line in sys.stdin:
            command, *rest = line.split()
            answer: object = None
            if command == "sync":
                for replicator in replicators:
                    replicator.sync(timeout=600)
            elif command == "commits":
                answer = time_commits(replicators[0], int(rest[0]))
            elif command in ("snapshot", "compact"):
                for replicator in replicators:
                    getattr(replicator, command)()
            elif command == "requests":
                answer = sum((s.requests for s in CountedReplica.stores), Counter())
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
