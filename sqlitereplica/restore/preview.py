"""What a restore would fetch, without fetching it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore.at import At
from sqlitereplica.restore.backup import LTXBackup
from sqlitereplica.restore.choose import Source, choose, open_stores
from sqlitereplica.restore.restore import wanted_by
from sqlitereplica.store.reach import to_datetime

__all__ = ["RestorePreview", "preview_restore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePreview:
    """What ``restore`` would do now.

    Attributes:
        source: The name of the replica that would be used.
        txid: The last transaction of the state; None if Litestream 0.3 wrote it.
        timestamp: When that was replicated; aware, UTC.
        files: The files of the plan, in order; none for a replica of Litestream 0.3.
        bytes: Their sizes added up: what is fetched if no old copy helps.
    """

    source: str
    txid: int | None
    timestamp: datetime
    files: tuple[FileInfo, ...]
    bytes: int


def preview_restore(
    replica: Source | Sequence[Source],
    *,
    at: At | None = None,
    txid: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> RestorePreview:
    """Choose a replica and plan as ``restore`` does, and stop there.

    Raises:
        NotRestorableError: There is no backup, or not of the state asked for.
        InvalidFileError: The pin asked for, or the last file, is damaged.
        StoreError: The replica cannot be read.
        ValueError: An argument makes no sense.
    """
    wanted = wanted_by(at, txid)
    candidates, _ = choose(open_stores(replica, storage_options), wanted)
    chosen = candidates[0]
    timestamp, last = chosen.backup.newness()
    files = tuple(chosen.backup.plan) if isinstance(chosen.backup, LTXBackup) else ()
    return RestorePreview(
        source=chosen.store.label,
        txid=last or None,
        timestamp=to_datetime(timestamp),
        files=files,
        bytes=sum(file.size for file in files),
    )
