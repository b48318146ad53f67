"""Restoring over an old copy, as several tests do it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.recording import Recording

from sqlitereplica.restore import RestoreResult, restore
from sqlitereplica.store import LTXStore

PAGE_SIZE = 4096
LAST = 6


def over(store: LTXStore, path: Path, **options: Any) -> RestoreResult:
    """Restore over what is there."""
    return restore(store, path, if_exists="replace", **options)


def copied(recording: Recording, path: Path, txid: int) -> None:
    """An old copy with no note on it."""
    path.write_bytes(recording.images[txid])


def restored(store: LTXStore, path: Path, txid: int) -> None:
    """An old copy that an earlier restore made."""
    restore(store, path, txid=txid, if_exists="replace")


def size(store: LTXStore, *txids: int) -> int:
    """Bytes of files of level 0."""
    return sum(f.size for f in store.list_level(0) if f.max_txid in txids)


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Why restores were done in full."""
    return [
        record.getMessage()
        for record in caplog.records
        if getattr(record, "action", "") in ("restore-in-full", "restore-sums")
    ]
