"""One replica, restored by us and by the real Litestream: the same bytes, or both refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.litestream import Litestream

from sqlitereplica.errors import NotRestorableError
from sqlitereplica.ltx import format_txid
from sqlitereplica.restore import restore
from sqlitereplica.restore.plan import to_datetime

__all__ = ["Both"]


class Both:
    """A replica in a folder that both restore."""

    def __init__(self, litestream: Litestream, replica: Path, out: Path) -> None:
        out.mkdir()
        self._litestream, self._replica, self._out = litestream, replica, out

    def latest(self) -> bytes | None:
        """The latest state; None if both find that there is none."""
        return self._compare([], {})

    def at_txid(self, txid: int) -> bytes | None:
        """The state after a transaction; None if both say that it cannot be had."""
        return self._compare(["-txid", format_txid(txid)], {"txid": txid})

    def before(self, timestamp: int) -> bytes | None:
        """The state before a time in milliseconds; None if both say that there is none."""
        moment = to_datetime(timestamp).isoformat(timespec="milliseconds")
        return self._compare(["-timestamp", moment], {"at": moment})

    def _compare(self, options: list[str], wanted: dict[str, object]) -> bytes | None:
        ours, theirs = self._out / "ours.db", self._out / "theirs.db"
        for path in (ours, theirs):
            path.unlink(missing_ok=True)
        try:
            self._litestream.run(
                "restore", *options, "-o", theirs, self._replica.as_uri()
            )
        except AssertionError:
            with pytest.raises(NotRestorableError):
                restore(self._replica, ours, verify=None, **wanted)  # type: ignore[arg-type]
            assert not ours.exists()
            return None
        restore(self._replica, ours, verify="full", **wanted)  # type: ignore[arg-type]
        image = ours.read_bytes()
        assert image == theirs.read_bytes(), f"{wanted} differs"
        return image
