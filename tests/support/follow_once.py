"""Follows a replica to its newest state and ends: ``python -m support.follow_once``.

With the folder of the copy and the replica. It is what ``strace`` kills.
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

from sqlitereplica.restore.following import Following
from sqlitereplica.sqlite import SourceBusyError
from sqlitereplica.store import LTXStore


def _main(folder: Path, replica: Path) -> None:
    following = Following(
        str(folder / "f.db"),
        lambda: LTXStore.open(replica),
        sqlite3.connect,
        copy="sqlite3",
        notes=folder / "held",
    )
    more = True
    while more:
        try:
            more = following.step()
        except SourceBusyError:
            continue  # readers are in the way
    following.close()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
