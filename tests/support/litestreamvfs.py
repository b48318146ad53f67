"""Litestream's own VFS, a loadable extension, in a process of its own.

It takes the replica from the environment that its process was started with, and brings
Go's runtime along.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

__all__ = ["query_by_litestream"]


def query_by_litestream(url: str, *statements: str, **env: str) -> list[list[Any]]:
    """The rows of each statement, as Litestream's VFS reads the replica.

    Raises:
        AssertionError: It failed; the message has what it printed.
    """
    # Where AWS_CA_BUNDLE is set, Litestream cannot make its S3 client.
    kept = {k: v for k, v in os.environ.items() if k != "AWS_CA_BUNDLE"}
    done = subprocess.run(
        [sys.executable, __file__, *statements],
        check=False,
        env={**kept, **env, "LITESTREAM_REPLICA_URL": url},
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def _main() -> None:
    import apsw
    import litestream_vfs

    loader = apsw.Connection(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(litestream_vfs.loadable_path(), "sqlite3_litestreamvfs_init")
    connection = apsw.Connection(
        "file:replica.db?vfs=litestream",
        flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
    )
    found = [list(connection.execute(statement)) for statement in sys.argv[1:]]
    print(json.dumps(found), flush=True)
    os._exit(0)  # Go's threads go on


if __name__ == "__main__":
    _main()
