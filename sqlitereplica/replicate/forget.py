"""Deleting the metadata of a database that nobody replicates."""

from __future__ import annotations

import os
from pathlib import Path

from sqlitereplica.replicate.metafolder import MetaFolder, default_folder
from sqlitereplica.replicate.options import database_path

__all__ = ["forget_metadata"]


def forget_metadata(
    db: str | os.PathLike[str],
    *,
    meta_path: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
) -> tuple[Path, bool]:
    """Delete the metadata folder; return its path, and whether there was one.

    The next start compares the database with its replicas instead. Nothing is lost.

    Raises:
        DatabaseStateError: ``kind`` ``"elsewhere"``: it is being replicated;
            ``"meta-folder"``: that is some other folder.
        ValueError: ``db`` is no path.
    """
    path = database_path(db)
    folder = Path(meta_path) if meta_path else default_folder(path)
    if not folder.is_dir():
        return folder, False
    meta = MetaFolder.locked(folder, path)
    try:
        if not dry_run:
            meta.delete()
    finally:
        meta.close()
    return folder, True
