"""Replicas that the real Litestream 0.3.13 wrote, out of the archive of them."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

__all__ = ["PAGE_SIZES", "Corpus"]

ARCHIVE = Path(__file__).parents[1] / "corpus" / "litestream03.tar.xz"
PAGE_SIZES = [512, 4096, 65536]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Corpus:
    """One of the replicas: see ``make_litestream03.py``."""

    replica: Path
    expected: dict[str, Any]

    @classmethod
    def unpack(cls, folder: Path, page_size: int) -> Corpus:
        """Put the replica of a page size into a folder, with the times of its files."""
        with tarfile.open(ARCHIVE) as archive:
            wanted = [e for e in archive if e.name.split("/")[0] == str(page_size)]
            archive.extractall(folder, wanted, filter="data")
        replica = folder / str(page_size)
        document = replica / "expected.json"
        expected = json.loads(document.read_bytes())
        document.unlink()
        return cls(replica, expected)

    def files(self) -> list[Path]:
        """Its files, the oldest first."""
        found = list(self.replica.rglob("*.lz4"))
        return sorted(found, key=lambda path: path.stat().st_mtime_ns)

    def times(self) -> list[datetime]:
        """For each file a time that is later, to the millisecond."""
        nanoseconds = [path.stat().st_mtime_ns for path in self.files()]
        return [
            EPOCH + timedelta(milliseconds=time // 1_000_000 + 2)
            for time in nanoseconds
        ]
