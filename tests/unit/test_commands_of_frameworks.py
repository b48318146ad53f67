"""What the commands of Django and Flask do, without their processes."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sqlitereplica import Replicator, TargetExistsError
from sqlitereplica.integrations.commands import (
    Target,
    restore_targets,
    show_status,
    verify_targets,
)
from sqlitereplica.testing import FaultyStore, MemoryStore, since


@pytest.fixture
def targets(tmp_path: Path) -> list[Target]:
    """A database with a backup, and one that has none and is not there."""
    full, empty = MemoryStore(name="full"), MemoryStore(name="empty")
    path = tmp_path / "full.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("create table t(x)")
        with Replicator(path, full.replica) as replicator:
            replicator.sync()
            connection.execute("insert into t values(1)")
    return [
        Target("full", str(path), [full.replica]),
        Target("empty", str(tmp_path / "empty.db"), [empty.replica]),
    ]


def test_restore_tells_what_it_did_with_each(targets: list[Target]) -> None:
    """Kept, restored, or nothing there: one line for each database."""
    lines: list[str] = []
    options = {"if_exists": "skip", "missing": "skip"}
    restore_targets(targets, lines.append, **options)
    Path(targets[0].path).unlink()
    restore_targets(targets[:1], lines.append, **options)
    kept, missing, restored = lines
    assert kept == f"full: {targets[0].path} is there already"
    assert missing == "empty: there is no backup yet"
    assert re.fullmatch(
        r"full: restored from .*, as it was at 20[\d-]{8} [\d:]{8} UTC", restored
    )
    with pytest.raises(TargetExistsError):
        restore_targets(targets[:1], lines.append, **{**options, "if_exists": "error"})


def test_status_is_good_only_if_every_replica_has_a_backup(
    targets: list[Target],
) -> None:
    """For people and for programs."""
    lines: list[str] = []
    assert show_status(targets[:1], lines.append)
    assert not show_status(targets, lines.append)
    pattern = (
        r"full: full: transaction (\d+) of 20.* UTC, \d+ restore points from .* in "
    )
    match = re.match(pattern, lines[0])
    assert match
    assert lines[2] == "empty: empty: no backup"

    assert not show_status(targets, lines.append, as_json=True)
    found = json.loads(lines.pop())
    assert found["full"]["full"]["txid"] == int(match[1])
    assert found["empty"]["empty"]["txid"] is None


def test_verify_is_good_only_if_nothing_is_wrong(targets: list[Target]) -> None:
    """Each replica is really verified, and the reports are shown."""
    lines: list[str] = []
    assert verify_targets(
        targets[:1], lines.append, level="restore", scope="history", as_json=True
    )
    [report] = json.loads(lines.pop())["full"]
    assert (report["level"], report["problems"]) == ("restore", [])
    assert not verify_targets(targets, lines.append, level="checksums", scope="history")
    assert [line.partition(":")[0] for line in lines] == ["full", "empty"]


def test_store_that_is_away_is_an_error_and_not_an_answer(tmp_path: Path) -> None:
    """Nobody is told that there is no backup when nobody knows."""
    store = FaultyStore()
    target = Target("a", str(tmp_path / "a.db"), [store.replica])
    store.plan = since(1)
    lines: list[str] = []
    with pytest.raises(Exception, match="not done") as caught:
        show_status([target], lines.append)
    assert type(caught.value).__name__ == "StoreError"
    assert lines == []
