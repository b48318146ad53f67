"""Restore one replica: what ``Ours.restore`` runs.

Prints its figures as JSON: the seconds of the call, which is what it takes in a process
that runs already, and how much was fetched.
"""

from __future__ import annotations

import importlib
import json
import sys
import time

from sqlitereplica import restore


def main() -> None:
    replica, target, verify, replace = sys.argv[1:]
    if replica.startswith("s3:"):
        importlib.import_module("s3fs")
    begun = time.perf_counter()
    result = restore(
        replica,
        target,
        verify="quick" if verify else None,
        if_exists="replace" if replace else "error",
    )
    took = time.perf_counter() - begun
    print(json.dumps({"call_s": took, "fetched_mb": result.bytes_fetched / (1 << 20)}))


if __name__ == "__main__":
    main()
