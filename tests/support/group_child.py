"""A process with a group: ``group_child.py FOLDER REPLICA``; obeys lines, answers in lines.

``parked N`` answers when so many are parked and nothing else goes on, ``sync`` when all is
durable, ``attached`` with how many databases were opened since the start, ``end`` stops.
"""

from __future__ import annotations

import sys
import time

from sqlitereplica import ReplicatorGroup
from sqlitereplica.events import Event


def main() -> None:
    """Do it."""
    attached = 0

    def observe(event: Event) -> None:
        nonlocal attached
        attached += event.action == "attach"

    group = ReplicatorGroup(
        sys.argv[1],
        replica=sys.argv[2],
        park_after=0.3,
        scan_interval=0.05,
        sync_interval=0.05,
        observer=observe,
    )
    group.start()
    print("ready", flush=True)
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "parked":
            while True:
                status = group.status()
                if (status.parked, status.running) == (int(rest[0]), 0):
                    break
                time.sleep(0.02)
        elif word == "sync":
            group.sync(timeout=None)
        elif word == "end":
            break
        print(attached if word == "attached" else "done", flush=True)


if __name__ == "__main__":
    main()
