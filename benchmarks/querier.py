"""Query a replica in place, or a local database: what the workload ``reading`` runs.

Prints its figures as JSON. Litestream's VFS takes the replica from the environment that
this process was started with. What the start of Python and the imports cost (s3fs on S3;
loading Litestream's library) is told apart: ``start_``.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import apsw

from benchmarks.measure import peak_rss
from sqlitereplica import connect

_POINTS = 1000


def main() -> None:
    system, where = sys.argv[1:]
    opener = {"ours": ours, "litestream": litestream, "none": plain}[system](where)
    begun, cpu = time.perf_counter(), time.process_time()
    figures = {"start_cpu_ms": cpu * 1e3, "start_rss_mb": resident()}
    connection = opener()
    last = connection.execute("select max(id) from big").get
    figures["open_and_first_query_ms"] = (time.perf_counter() - begun) * 1e3
    figures["open_and_first_query_cpu_ms"] = (time.process_time() - cpu) * 1e3

    rng = random.Random(4)
    begun = time.perf_counter()
    for _ in range(_POINTS):
        number = rng.randrange(1, last + 1)
        row = connection.execute("select v, b from big where id = ?", (number,)).get
        assert row is not None
    figures["point_query_us"] = (time.perf_counter() - begun) / _POINTS * 1e6

    begun = time.perf_counter()
    scan = "select count(*), sum(length(v)), sum(length(b)) from big not indexed"
    assert connection.execute(scan).get[0] > 0
    figures["full_scan_s"] = time.perf_counter() - begun
    figures["cpu_s"] = time.process_time() - cpu
    figures["rss_mb"] = peak_rss(os.getpid())
    print(json.dumps(figures), flush=True)
    sys.stdout.close()
    os._exit(0)  # Go's threads go on


def resident() -> float:
    """MiB in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / (1 << 20)


def ours(where: str) -> Callable[[], apsw.Connection]:
    if where.startswith("s3:"):
        importlib.import_module("s3fs")
    return lambda: connect(where)


def litestream(where: str) -> Callable[[], apsw.Connection]:
    del where
    found = importlib.import_module("litestream_vfs").loadable_path()
    loader = apsw.Connection(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(found, "sqlite3_litestreamvfs_init")
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    return lambda: apsw.Connection("file:replica.db?vfs=litestream", flags=flags)


def plain(where: str) -> Callable[[], apsw.Connection]:
    return lambda: apsw.Connection(where, flags=apsw.SQLITE_OPEN_READONLY)


if __name__ == "__main__":
    main()
