"""A database as a killed application leaves it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["make_crashed"]

_APPLICATION = """
import os, sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("PRAGMA journal_mode=WAL")
c.execute("CREATE TABLE old(a)")
c.execute("PRAGMA wal_checkpoint(TRUNCATE)")
c.execute("PRAGMA wal_autocheckpoint=0")
c.execute("CREATE TABLE old_in_wal(a)")
os._exit(0)
"""


def make_crashed(path: Path) -> None:
    """Make a database with two tables, ``old`` and, in the WAL only, ``old_in_wal``."""
    subprocess.run([sys.executable, "-c", _APPLICATION, path], check=True)
    assert path.with_name(path.name + "-wal").stat().st_size > 0
