"""A database of which every state is kept, and the replica made of it."""

from __future__ import annotations

import io
import sqlite3
import weakref
from array import array
from pathlib import Path

from sqlitereplica import ltx
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore.sums import put_sums
from sqlitereplica.store import LTXStore, SideFile

__all__ = ["START", "Recording"]

START = 1_700_000_000_000
"""The time of TXID 0, in milliseconds; each further one is a second later."""


class Recording:
    """Runs SQL on a database and publishes each step as one transaction.

    ``images`` has the database file after each TXID, ``files`` every LTX file made, by
    its TXIDs. The replica is written by the test, not by the code that replicates.
    """

    def __init__(
        self, path: Path, store: LTXStore, *, page_size: int = 4096, signed: bool = True
    ) -> None:
        """Begin with no database. ``signed``: files carry our checksum extension."""
        self.store = store
        self.images = [b""]
        self.files: dict[tuple[int, int], bytes] = {}
        self._signed = signed
        self._page_size = page_size
        self._path = path
        self._database = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False
        )
        # Python 3.13 tells of connections that are left open.
        weakref.finalize(self, self._database.close)
        self._database.execute(f"PRAGMA page_size={page_size}")
        self._database.execute("PRAGMA journal_mode=WAL")

    @property
    def database(self) -> sqlite3.Connection:
        """The connection, for what is more than a statement; ``commit`` publishes it."""
        return self._database

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    @property
    def txid(self) -> int:
        """The last TXID."""
        return len(self.images) - 1

    def commit(self, *statements: str) -> int:
        """Run statements; publish what they change as the next TXID in level 0."""
        for statement in statements:
            self._database.execute(statement)
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.images.append(self._path.read_bytes())
        self.publish(0, self.txid, self.txid)
        return self.txid

    def publish(self, level: int, first: int, last: int) -> FileInfo:
        """Publish the file of these TXIDs at a level."""
        data = self.file(first, last)
        timestamp = START + last * 1000
        return self.store.put(level, first, last, data, timestamp=timestamp)

    def file(self, first: int, last: int) -> bytes:
        """The file of these TXIDs, published or not."""
        return self.files.setdefault((first, last), self._encode(first, last))

    def publish_sums(self, txid: int) -> SideFile:
        """Publish the page checksums of a state, as a writer does for a full image."""
        header = ltx.Header(
            page_size=self._page_size,
            commit=len(self.pages(txid)),
            min_txid=1,
            max_txid=txid,
            timestamp=START + txid * 1000,
            post_checksum=self.checksum(txid),
        )
        numbered = enumerate(self.pages(txid), 1)
        return put_sums(
            self.store,
            header,
            array("Q", (ltx.page_checksum(*page) for page in numbered)),
        )

    def pages(self, txid: int) -> list[bytes]:
        """The pages of the database after a TXID."""
        image, size = self.images[txid], self._page_size
        return [image[at : at + size] for at in range(0, len(image), size)]

    def checksum(self, txid: int) -> int:
        """The database checksum after a TXID."""
        numbered = enumerate(self.pages(txid), 1)
        return ltx.database_checksum(ltx.page_checksum(p, data) for p, data in numbered)

    def _encode(self, first: int, last: int) -> bytes:
        if first == last or first == 1:
            return self._difference(first, last)
        inputs = [self.files.get((n, n)) for n in range(first, last + 1)]
        merged = bytearray()
        ltx.compact([io.BytesIO(part or b"") for part in inputs], merged.extend)
        return bytes(merged)

    def _difference(self, first: int, last: int) -> bytes:
        old = self.pages(first - 1)
        new = self.pages(last)
        header = ltx.Header(
            page_size=self._page_size,
            commit=len(new),
            min_txid=first,
            max_txid=last,
            timestamp=START + last * 1000,
            pre_checksum=self.checksum(first - 1) if self._signed and first > 1 else 0,
            post_checksum=self.checksum(last) if self._signed else 0,
        )
        changed = [
            (pgno, page)
            for pgno, page in enumerate(new, 1)
            if pgno > len(old) or page != old[pgno - 1]
        ]
        return ltx.encode(header, changed)
