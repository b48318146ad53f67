"""T25: a start that finds no metadata, damaged ones, or those of another life goes on under
the next TXID, and ships only what differs all the same."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from support.capturing import serialized
from support.killed import Left, pages_of, replicate_and_die

from sqlitereplica import Replicator, restore
from sqlitereplica.ltx import SNAPSHOT_LEVEL

pytestmark = pytest.mark.crash

SOCKET = shutil.ignore_patterns("socket")
"""A killed process leaves it, and it cannot be copied."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A killed process's leavings, to be copied by each test."""
    return replicate_and_die(tmp_path_factory.mktemp("original"))


@pytest.fixture
def left(original: Left, tmp_path: Path) -> Left:
    """A copy of them."""
    folder = tmp_path / "place"
    shutil.copytree(original.database.parent, folder, ignore=SOCKET)
    return Left(folder / "app.db", folder / "replica", original.digests)


def check_goes_on(left: Left, database: Path) -> None:
    """A Replicator ships the pages that differ, then further commits, one TXID each."""
    before = pages_of(left.image(), 4096)
    with Replicator(database, [left.replica], sync_interval=60) as replicator:
        replicator.sync()
        now = pages_of(serialized(database), 4096)
        shipped: dict[int, bytes] = {}
        for info in left.files_after(left.txid):
            shipped |= left.decoded(info)
        assert shipped.keys() == {p for p, b in now.items() if before.get(p) != b}
        assert left.image() == b"".join(now.values())

        db = sqlite3.connect(database, isolation_level=None, timeout=30)
        db.execute("update t set v = 'afterwards' where id = 7")
        replicator.sync()
        assert left.image() == db.serialize()
        db.close()
    txids = [info.max_txid for info in left.files_after(0)]
    assert txids == list(range(1, left.txid + (2 if shipped else 1) + 1))
    assert replicator.status().state == "stopped"
    assert left.files_after(0, SNAPSHOT_LEVEL) == []
    left.check_old_states()


def test_machine_lost_and_restored_elsewhere_goes_on_in_the_same_replica(
    left: Left, tmp_path: Path
) -> None:
    """Nothing is uploaded that the replica has; numbers go on above all that were used."""
    elsewhere = tmp_path / "elsewhere" / "app.db"
    restore(left.replica, elsewhere)
    check_goes_on(left, elsewhere)


def test_machine_lost_and_an_older_state_restored_goes_on_above(
    left: Left, tmp_path: Path
) -> None:
    """The state of long ago becomes the newest, under a new number; none is used twice."""
    elsewhere = tmp_path / "elsewhere" / "app.db"
    restore(left.replica, elsewhere, txid=min(left.digests))
    check_goes_on(left, elsewhere)


def nothing(left: Left) -> None:
    """The folder as the kill left it."""


def removed(left: Left) -> None:
    """No metadata folder."""
    shutil.rmtree(left.metadata)


def emptied(left: Left) -> None:
    """Files of no length, as a full disk leaves them."""
    for name in ("pages", "pages.log"):
        (left.metadata / name).write_bytes(b"")


def of_another_database(left: Left) -> None:
    """Somebody copied the folder of another database."""
    other = replicate_and_die(left.database.parent / "other", page_size=4096)
    shutil.rmtree(left.metadata)
    shutil.copytree(other.metadata, left.metadata, ignore=SOCKET)


def of_another_page_size(left: Left) -> None:
    """Its pages are not even as large."""
    other = replicate_and_die(left.database.parent / "other", page_size=1024)
    shutil.rmtree(left.metadata)
    shutil.copytree(other.metadata, left.metadata, ignore=SOCKET)


def with_a_newer_base(left: Left) -> None:
    """Killed between the new base and the new log: the log names another base."""
    other = replicate_and_die(left.database.parent / "other")
    shutil.copy(other.metadata / "pages", left.metadata)


def with_rubbish_in_the_spool(left: Left) -> None:
    """What was on its way when the process died."""
    for name in ("0000000000000009.ltx", "delta-12345678.ltx", "x.tmp"):
        (left.metadata / "spool" / name).write_bytes(b"half a file")


def cut(name: str, part: float) -> Callable[[Left], None]:
    """Truncate one file to a part of its length."""

    def run(left: Left) -> None:
        file = left.metadata / name
        file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])

    run.__name__ = f"{name}-cut-to-{part:g}"
    return run


def garbled(name: str, part: float) -> Callable[[Left], None]:
    """Flip a bit in one file."""

    def run(left: Left) -> None:
        file = left.metadata / name
        data = bytearray(file.read_bytes())
        data[int(part * (len(data) - 1))] ^= 0x10
        file.write_bytes(data)

    run.__name__ = f"{name}-garbled-at-{part:g}"
    return run


DAMAGES = [
    nothing,
    removed,
    emptied,
    of_another_database,
    of_another_page_size,
    with_a_newer_base,
    with_rubbish_in_the_spool,
    *(cut("pages", part) for part in (0.01, 0.5, 0.999)),
    *(cut("pages.log", part) for part in (0.05, 0.5, 0.999)),
    *(garbled("pages", part) for part in (0.01, 0.6)),
    *(garbled("pages.log", part) for part in (0.0, 0.12, 0.99)),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_restart_survives_any_state_of_the_metadata_folder(
    left: Left, damage: Callable[[Left], None]
) -> None:
    """The folder is a cache: whatever is in it, the upload is as small as it can be."""
    damage(left)
    check_goes_on(left, left.database)
