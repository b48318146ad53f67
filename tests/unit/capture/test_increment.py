"""Increments: one content under any number, in memory or on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlitereplica.capture import Increment, State
from sqlitereplica.ltx import decode
from sqlitereplica.store import LTXStore

PAGES = {p: bytes([p]) * 512 for p in (1, 2, 5)}


def increment(seq: int = 3) -> Increment:
    """An increment of three pages."""
    state = State(
        seq=seq, timestamp=99, page_size=512, commit=5, checksum=(1 << 63) | 7
    )
    return Increment(state, (1 << 63) | 5, tuple(PAGES), dict(PAGES))


@pytest.mark.parametrize("spilled", [False, True])
def test_content_is_the_same_under_any_number(tmp_path: Path, spilled: bool) -> None:
    """Replicas count on their own; only the numbers in the header differ."""
    one = increment()
    if spilled:
        one.spill(tmp_path)
        assert one.in_memory() == 0
        assert one.on_disk() > 0
    for txid in (3, 4, 3, 900):
        data = one.content(txid)
        assert data is not None
        raw = data if isinstance(data, bytes) else data.read_bytes()
        header, pages = decode(raw)
        assert (header.min_txid, header.max_txid) == (txid, txid)
        assert (header.pre_checksum, header.post_checksum) == (1 << 63 | 5, 1 << 63 | 7)
        assert dict(pages) == PAGES


def test_file_published_by_a_link_is_never_written_again(tmp_path: Path) -> None:
    """A local store links spool files; encoding anew makes a new file each time."""
    spool = tmp_path / "spool"
    spool.mkdir()
    store = LTXStore.open(tmp_path / "replica")
    one = increment()
    one.spill(spool)
    for _ in range(3):  # a put whose answer was lost is put again
        data = one.content(8)
        assert isinstance(data, Path)
        store.put(0, 8, 8, data, timestamp=99)
        (published,) = (tmp_path / "replica").rglob("*.ltx")
        held = published.open("rb")
        one.content(8)
        with held:
            assert decode(held.read())[0].max_txid == 8
    one.discard()
    assert list(spool.iterdir()) == []
    assert decode(published.read_bytes())[0].max_txid == 8
