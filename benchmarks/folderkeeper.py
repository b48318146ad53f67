"""A group of a folder in a process of its own: ``folderkeeper.py FOLDER REPLICA N``.

Prints a line of JSON once all N databases are parked, and answers ``sync PATH`` likewise.
"""

from __future__ import annotations

import json
import sys
import time

from sqlitereplica import ReplicatorGroup


def main() -> None:
    folder, replica, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # Parked as soon as there is nothing to do: the load is not to be measured.
    with ReplicatorGroup(folder, replica, park_after=1.0) as group:
        while group.status().parked < count:
            time.sleep(0.2)
        print(json.dumps("parked"), flush=True)
        for line in sys.stdin:
            group.sync(line.split()[1], timeout=600)
            print(json.dumps("durable"), flush=True)


if __name__ == "__main__":
    main()
