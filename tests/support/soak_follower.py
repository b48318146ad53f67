"""The follower of the soak: a process that keeps a file at the newest state of a replica.

Run as a program with the replica and the file. It says ``ready`` when the file is there. At the
end of its input it takes in the rest, and says the transaction that it ended with.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sqlitereplica import Follower

__all__ = ["FollowerProcess"]


class FollowerProcess:
    """The process, until its end."""

    def __init__(self, replica: str, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, replica, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def finish(self) -> int:
        """Have it take in the rest and end; the transaction that the file holds."""
        told, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0
        return int(told)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        with self._process:
            pass


def _main(replica: str, path: str) -> None:
    with Follower(replica, path, interval=0.02) as follower:
        follower.wait(1, timeout=60)
        print("ready", flush=True)
        while os.read(0, 100):
            continue
        status = follower.wait(timeout=60)
        assert status.error is None, status
    print(status.txid, flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
