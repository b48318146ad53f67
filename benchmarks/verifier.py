"""Verify one replica: what ``Ours.prove`` runs.

Prints its figures as JSON: the seconds of the call, which is what it takes in a process
that runs already.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from sqlitereplica import verify


def main() -> None:
    arguments: list[Any] = sys.argv[1:]
    replica, level, scope, scratch = arguments
    begun = time.perf_counter()
    report = verify(replica, level, scope=scope, scratch=scratch)
    took = time.perf_counter() - begun
    report.raise_for_problems()
    print(json.dumps({"call_s": took}))


if __name__ == "__main__":
    main()
