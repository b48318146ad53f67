"""Putting the fence of a host that takes over, from a file that follows the replica.

Why there is one is in ``fencing.py``: whoever has taken the next name of level 0 knows that
nobody else's put succeeds any more. A follower puts it when its file is the newest state, and
follows it like any other file. Only then is the file given away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlitereplica.errors import AnotherWriterError
from sqlitereplica.events import Observer, Reporter
from sqlitereplica.ltx import Header, encode
from sqlitereplica.replicate.leasing import Leasing
from sqlitereplica.restore.held import Held
from sqlitereplica.store import LTXStore

__all__ = ["Fence"]


class Fence:
    """The fence of one tenure; used by one thread."""

    def __init__(
        self,
        leasing: Leasing,
        open_store: Callable[[], LTXStore],
        *,
        database: str,
        node: int,
        observer: Observer,
    ) -> None:
        self._leasing, self._open_store = leasing, open_store
        self.node = node
        self._report = Reporter(observer, database, leasing.replica)
        self._txid = 0
        """Its name; 0 before it is put."""

    @property
    def is_put(self) -> bool:
        """Whether the next name was taken."""
        return self._txid > 0

    def put(self, held: Held, page: bytes) -> None:
        """Take the name after a state, with a file that changes nothing: its page 1.

        A late put of the old holder may have it already (``is_put`` is then false): it
        belongs to the history, and is to be followed first.

        Raises:
            LeaseLostError: Another host has taken over.
            StoreError: The lease is not confirmed, or the file cannot be put.
        """
        txid, now = held.txid + 1, time.time_ns() // 1_000_000
        header = Header(
            page_size=held.page_size,
            commit=held.commit,
            min_txid=txid,
            max_txid=txid,
            timestamp=max(now, held.timestamp + 1),
            pre_checksum=held.checksum,
            post_checksum=held.checksum,
            wal_offset=32,
            node_id=self.node,
        )
        self._leasing.check()
        data = encode(header, [(1, page)])
        try:
            self._open_store().put(0, txid, txid, data, timestamp=header.timestamp)
        except AnotherWriterError:
            self._report_late(txid)
        else:
            self._txid = txid

    def check(self, held: Held) -> None:
        """Raise AnotherWriterError unless it is the newest file: a state to go on from.

        Another host that has taken over since has put its own behind it.
        """
        if held.txid != self._txid:
            self._txid = 0  # whoever tries again puts another one
            self._leasing.refuse_if_lost()
            raise AnotherWriterError(self._leasing.replica)

    def _report_late(self, txid: int) -> None:
        self._report("standby-late-put", logging.WARNING, txid=txid)
