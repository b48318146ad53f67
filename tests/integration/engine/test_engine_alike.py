"""Changes that the database checksum does not show: two pages that change in the same bits.

The database checksum is the exclusive or of page checksums, and those are linear: the same
change at the same place of two pages leaves it as it was. So it proves nothing by itself
that a replica is in step.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from support.capturing import digest, serialized
from support.stepping import Stepped
from support.told import MakeStepped, ToldStore, restored

from sqlitereplica import restore


def alike(db: sqlite3.Connection, value: int) -> None:
    """Change two rows at the same place of their pages."""
    db.execute(
        "update t set v = zeroblob(3000) || char(?) where id in (3, 9)", (value,)
    )


@pytest.fixture
def stepped_database(db: sqlite3.Connection) -> None:
    """A row to a page."""
    for _ in range(20):
        db.execute("insert into t(v) values(zeroblob(3000) || char(65))")


@pytest.mark.usefixtures("stepped_database")
@pytest.mark.parametrize("table", ["kept", "lost", "torn"])
def test_change_while_down_is_shipped_though_the_checksum_is_the_same(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    tmp_path: Path,
    table: str,
) -> None:
    """Whatever is left of the page table: pages are compared, not their exclusive or."""
    stepped = make()
    assert stepped.durable()
    before = stepped.engine.capture.table.checksum
    alike(db, 66)
    assert stepped.durable()
    stepped.kill()
    alike(db, 67)
    if table == "lost":
        shutil.rmtree(stepped.meta)
    elif table == "torn":
        with (stepped.meta / "pages.log").open("ab") as log:
            log.write(b"torn")
    stepped.begin()
    assert stepped.durable()
    assert stepped.engine.capture.table.checksum == before  # else this shows nothing
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


@pytest.mark.usefixtures("stepped_database")
def test_state_that_came_again_is_not_taken_for_another(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """Of two recorded states with one checksum neither is believed to be the replica's."""
    stepped = make()
    assert stepped.durable()
    alike(db, 66)
    assert stepped.durable()
    stepped.kill()
    alike(db, 65)  # what it was before
    stepped.begin()
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


@pytest.mark.usefixtures("stepped_database")
def test_state_of_another_machine_is_not_taken_for_our_own(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """A copy went on elsewhere, and changed without a change of the checksum."""
    stepped = make(node_id=1)
    assert stepped.durable()
    db.execute("insert into t(v) values('ours')")
    assert stepped.durable()
    stepped.kill()
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "a.db"
    restore(store, copy)
    there = sqlite3.connect(copy, isolation_level=None)
    other = Stepped(copy, [lambda: store], node_id=2)
    assert other.durable()
    alike(there, 66)
    assert other.durable()
    other.kill()
    there.close()
    stepped.begin()
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))
