"""What changed between two states: every row that did, no other, and few pages read."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.recording import START, Recording
from support.troubled import TroubledStore

from sqlitereplica import NotRestorableError, Replica, diff
from sqlitereplica.ltx import FileInfo
from sqlitereplica.store import LTXStore

TABLES = (
    "CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, body)",
    "CREATE TABLE named(name TEXT PRIMARY KEY COLLATE NOCASE, value)",
    "CREATE TABLE pair(a, b, c, PRIMARY KEY (b, a)) WITHOUT ROWID",
    "CREATE TABLE bare(x, y)",
    "CREATE INDEX by_body ON item(body)",
)
KEYS = {"item": ("id",), "named": ("name",), "pair": ("b", "a"), "bare": ()}


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    """A database with tables of all kinds."""
    store = LTXStore.open(tmp_path / "replica")
    made = Recording(tmp_path / "source.db", store, page_size=1024)
    made.commit(*TABLES)
    yield made
    made.close()


def content(recording: Recording, txid: int, table: str) -> list[tuple[Any, ...]]:
    """All rows of a table at a transaction, with the types of their values."""
    path = recording._path.with_suffix(".state")
    image = bytearray(recording.images[txid])
    image[18:20] = b"\1\1"
    path.write_bytes(image)
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(f"SELECT * FROM {table}").fetchall()
    return [tuple((type(v).__name__, v) for v in row) for row in found]


def check(recording: Recording, old: int, new: int) -> None:
    """The difference that is found turns one state into the other, and is the least."""
    found = diff(recording.store, from_txid=old, to_txid=new)
    assert (found.from_txid, found.to_txid) == (old, new)
    for table in KEYS:
        before, after = (sorted(content(recording, t, table)) for t in (old, new))
        for row in (row for row in found if row.table == table):
            assert row.old != row.new or typed(row.old) != typed(row.new)
            if row.old is not None:
                before.remove(typed(row.old))
            if row.new is not None:
                before.append(typed(row.new))
        assert sorted(before) == after, table
        keys = [
            tuple(r.key.values()) for r in found if r.table == table and KEYS[table]
        ]
        assert len(keys) == len(set(keys)), "each row is named once"


def typed(row: Any) -> tuple[Any, ...] | None:
    """A row as ``content`` has it."""
    return row and tuple((type(v).__name__, v) for v in row.values())


def change(recording: Recording, rng: random.Random) -> None:
    """One transaction of some statements."""
    made = recording._database
    for _ in range(rng.randrange(1, 6)):
        number, size = rng.randrange(1, 400), rng.choice((3, 300, 900, 5000))
        value: Any = rng.choice((number, number / 2, rng.randbytes(size), "x" * size))
        sql, values = rng.choice(
            [
                ("INSERT INTO item(name, body) VALUES ('n', ?)", (value,)),
                ("UPDATE item SET body = ? WHERE id = ?", (value, number)),
                ("UPDATE item SET body = CAST(id AS TEXT) WHERE id % 60 = 7", ()),
                ("DELETE FROM item WHERE id BETWEEN ? AND ?", (number, number + 5)),
                ("REPLACE INTO named VALUES (?, ?)", (f"N{number % 50}", value)),
                ("UPDATE named SET name = lower(name) WHERE name = ?", (f"N{number % 50}",)),
                ("REPLACE INTO pair VALUES (?, ?, ?)", (number % 7, number % 11, value)),
                ("DELETE FROM pair WHERE a = ?", (number % 7,)),
                ("INSERT INTO bare VALUES (?, ?)", (number % 3, value)),
                ("DELETE FROM bare WHERE rowid = ?", (number % 40,)),
                ("UPDATE bare SET y = 1.0 WHERE y = 1", ()),
            ]
        )  # fmt: skip
        made.execute(sql, values)
    recording.commit(*(["VACUUM"] if rng.random() < 0.1 else []))


@pytest.mark.parametrize("seed", range(3))
def test_difference_turns_one_state_into_the_other(
    recording: Recording, seed: int
) -> None:
    """Between any two of many states, forwards and backwards."""
    rng = random.Random(seed)
    for number in range(25):
        change(recording, rng)
        if number % 8 == 7:
            recording.publish(9, 1, recording.txid)
    for _ in range(12):
        old, new = rng.sample(range(1, recording.txid + 1), 2)
        check(recording, old, new)
    check(recording, 1, recording.txid)
    assert not diff(recording.store, from_txid=5, to_txid=5)


def test_large_value_that_changed_behind_its_leaf_is_found(
    recording: Recording,
) -> None:
    """A byte in an overflow page changes no leaf, and is a change all the same."""
    body = bytearray(random.Random(1).randbytes(20_000))
    recording._database.execute("DROP INDEX by_body")
    recording._database.execute("INSERT INTO item VALUES (1, 'large', ?)", (body,))
    recording.commit("INSERT INTO item VALUES (2, 'other', 5)")
    old = recording.txid
    body[15_000] ^= 1
    recording._database.execute("UPDATE item SET body = ? WHERE id = 1", (body,))
    recording.commit()
    before, after = recording.pages(old), recording.pages(old + 1)
    different = sum(a != b for a, b in zip(before, after, strict=True))
    assert different <= 2, "SQLite changed that page in its place"
    (row,) = diff(recording.store, from_txid=old)
    assert (row.kind, row.key, row.columns) == ("update", {"id": 1}, ("body",))
    assert row.new is not None and row.new["body"] == bytes(body)


def test_only_pages_that_changed_are_read(recording: Recording) -> None:
    """A row that changed in a large table does not cost the table."""
    recording.commit(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 4000)"
        " INSERT INTO item(name, body) SELECT 'n' || i, randomblob(500) FROM n"
    )
    recording.publish(9, 1, recording.txid)
    recording.commit("UPDATE item SET name = 'new' WHERE id IN (17, 3000)")
    store = TroubledStore.at(Path(str(recording.store.name)))
    read = 0

    def count(info: FileInfo, start: int) -> None:
        nonlocal read
        read += info.level == 9 and start > 100

    store.before_get = count
    found = diff(store, from_txid=recording.txid - 1)
    assert [row.key["id"] for row in found] == [17, 3000]
    assert found.tables == {"item": {"update": 2}}
    pages = len(recording.pages(recording.txid))
    assert read < pages // 30


def test_changes_are_values_and_text(recording: Recording) -> None:
    """Each says what it was and what it is; all together are printed and shown."""
    recording.commit(
        "INSERT INTO item VALUES (1, 'tea', 3), (2, 'cake', 4), (3, 'gone', x'00')",
        "CREATE VIEW dear AS SELECT * FROM item WHERE body > 3",
    )
    old = recording.txid
    recording.commit(
        "UPDATE item SET body = 5 WHERE id = 2",
        "DELETE FROM item WHERE id = 3",
        "INSERT INTO item VALUES (4, '<milk>', 1)",
        "ALTER TABLE bare ADD COLUMN z",
        "DROP VIEW dear",
        "CREATE TABLE fresh(a)",
        "INSERT INTO fresh VALUES ('x')",
    )
    found = diff(recording.store, START / 1000 + old + 0.5)
    update, gone, new = (
        next(row for row in found if row.table == "item" and row.kind == kind)
        for kind in ("update", "delete", "insert")
    )
    assert update.old == {"id": 2, "name": "cake", "body": 4}
    assert update.new == {"id": 2, "name": "cake", "body": 5}
    assert (update.columns, update.key) == (("body",), {"id": 2})
    assert str(update) == "~ item(id=2) body: 4 -> 5"
    assert str(gone) == "- item(id=3) name: 'gone', body: 1 bytes"
    assert str(new) == "+ item(id=4) name: '<milk>', body: 1"
    (fresh,) = [row for row in found if row.table == "fresh"]
    assert (fresh.kind, fresh.new) == ("insert", {"a": "x"})
    assert [(c.type, c.name, c.old is None, c.new is None) for c in found.schema] == [
        ("table", "bare", False, False),
        ("table", "fresh", True, False),
        ("view", "dear", False, True),
    ]
    assert found.tables["item"] == {"update": 1, "delete": 1, "insert": 1}
    text = str(found)
    assert f"transactions {old} to {old + 1}: 4 rows" in text
    assert "+ CREATE TABLE fresh(a)" in text
    assert "&lt;milk&gt;" in found._repr_html_()
    assert found[0] in found[:4] and len(list(found)) == len(found) == 4
    only = diff(recording.store, from_txid=old, tables=["fresh"])
    assert list(only) == [fresh]
    with pytest.raises(ValueError, match="no table nothing"):
        diff(recording.store, from_txid=old, tables=["nothing"])


def test_column_that_is_new_makes_no_row_another_one(recording: Recording) -> None:
    """Rows are compared by the columns that both states have."""
    recording.commit("INSERT INTO item VALUES (1, 'a', 1), (2, 'b', 2)")
    recording.commit(
        "ALTER TABLE item ADD COLUMN extra DEFAULT 7",
        "UPDATE item SET body = 9 WHERE id = 2",
    )
    (row,) = diff(recording.store, from_txid=recording.txid - 1)
    assert row.key == {"id": 2}
    assert row.new == {"id": 2, "name": "b", "body": 9, "extra": 7}
    assert row.old == {"id": 2, "name": "b", "body": 2}


def test_text_that_is_no_text_is_compared(recording: Recording) -> None:
    """Bytes that are no UTF-8 come through, and differ where they do."""
    recording.commit("INSERT INTO item VALUES (1, CAST(x'ff00' AS TEXT), 1)")
    recording.commit("UPDATE item SET name = CAST(x'fe00' AS TEXT)")
    (row,) = diff(recording.store, from_txid=recording.txid - 1)
    assert row.old is not None and row.new is not None
    assert row.old["name"].encode("utf-8", "surrogateescape") == b"\xff\x00"
    assert row.new["name"].encode("utf-8", "surrogateescape") == b"\xfe\x00"


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_databases_that_vacuum_themselves(tmp_path: Path, mode: str) -> None:
    """Pointer maps are no rows."""
    store = LTXStore.open(tmp_path / "replica")
    recording = Recording(tmp_path / "source.db", store, page_size=512)
    recording._database.execute(f"PRAGMA auto_vacuum = {mode}")
    recording.commit(*TABLES)
    rng = random.Random(7)
    for _ in range(12):
        change(recording, rng)
    for old, new in ((1, 13), (6, 13), (12, 3)):
        check(recording, old, new)
    recording.close()


def test_states_are_asked_for_as_for_restore(recording: Recording) -> None:
    """By times and pins; what is not there is said."""
    recording.commit("INSERT INTO item VALUES (1, 'a', 1)")
    replica = Replica(recording.store.name)
    replica.pin("before", txid=1)
    found = diff(replica, "before", "2023-11-14T22:13:22.5Z")
    assert (found.from_txid, found.to_txid, len(found)) == (1, 2, 1)
    with pytest.raises(ValueError, match="which state"):
        diff(replica)
    with pytest.raises(NotRestorableError):
        diff(replica, from_txid=7)
