"""Restores that may choose between replicas."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.recording import Recording
from support.troubled import TroubledStore, copy, make, overwrite

from sqlitereplica import ltx
from sqlitereplica.errors import (
    ChecksumMismatchError,
    NotRestorableError,
    StoreError,
)
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore import preview_restore, restore, restore_points, verify
from sqlitereplica.store import LTXStore, Replica

Two = tuple[Recording, TroubledStore, TroubledStore]


def leftovers(folder: Path) -> list[str]:
    """Temporary files of restores."""
    return [name for name in os.listdir(folder) if name.startswith(".")]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Recording, TroubledStore, TroubledStore]]:
    """A recording of eight transactions and two replicas of it, the second behind."""
    ahead, behind = TroubledStore.at(tmp_path / "a"), TroubledStore.at(tmp_path / "b")
    made = make(tmp_path / "source.db", ahead, 6)
    for file in ahead.list_all():
        copy(ahead, behind, file)
    made.commit("INSERT INTO t(b) VALUES (1)")
    made.commit("INSERT INTO t(b) VALUES (2)")
    yield made, ahead, behind
    made.close()


def test_newest_of_several_replicas_is_used(two: Two, tmp_path: Path) -> None:
    """Order matters only between equals."""
    made, ahead, behind = two
    for number, sources in enumerate([(ahead, behind), (behind, ahead)]):
        result = restore(sources, tmp_path / f"{number}.db")
        assert (result.txid, result.source) == (8, ahead.name)
    assert restore((behind, ahead), tmp_path / "r.db", txid=5).source == behind.name
    assert restore([ahead, behind], tmp_path / "s.db", txid=5).source == ahead.name
    assert restore([behind, ahead], tmp_path / "t.db", txid=7).source == ahead.name
    assert made.images[7] == (tmp_path / "t.db").read_bytes()


def test_results_call_a_replica_by_the_name_that_it_was_given(
    two: Two, tmp_path: Path
) -> None:
    """Whatever is asked; only one without a name is called by its URL."""
    _, ahead, behind = two
    main = Replica(ahead.name, name="main")
    result = restore([main, behind], tmp_path / "r.db")
    found = {
        result.source,
        preview_restore([main, behind]).source,
        restore_points(main).replica,
        verify(main).replica,
    }
    assert (found, result.txid) == ({"main"}, 8)
    assert restore(Replica(ahead.name), tmp_path / "s.db").source == ahead.name


def test_newest_is_told_by_the_files_not_by_their_listed_times(
    two: Two, tmp_path: Path
) -> None:
    """A replica that was copied later has younger files, but no newer state."""
    _, ahead, behind = two
    for file in (tmp_path / "b").rglob("*.ltx"):
        os.utime(file)
    assert restore([behind, ahead], tmp_path / "r.db").source == ahead.name


def test_unreachable_replica_is_passed_over_and_logged(
    two: Two, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One replica that works is enough, even if it is behind."""
    made, ahead, behind = two
    ahead.down = True
    result = restore([ahead, behind], tmp_path / "restored.db")
    assert (result.txid, result.source) == (6, behind.name)
    assert (tmp_path / "restored.db").read_bytes() == made.images[6]
    assert "restore-skip-replica" in [r.__dict__["action"] for r in caplog.records]


def test_replica_that_fails_midway_is_passed_over(two: Two, tmp_path: Path) -> None:
    """An error or damage in the newest one leaves the next."""
    made, ahead, behind = two

    def fail(file: FileInfo, start: int) -> None:
        if file.max_txid == 3:
            raise StoreError("no answer", operation="get")

    ahead.before_get = fail
    assert restore([ahead, behind], tmp_path / "1.db").source == behind.name
    ahead.before_get = None
    overwrite(ahead, ahead.list_all()[3], b"nonsense")
    assert restore([ahead, behind], tmp_path / "2.db").source == behind.name
    assert (tmp_path / "2.db").read_bytes() == made.images[6]
    assert leftovers(tmp_path) == []


def test_replica_that_loses_everything_midway_is_passed_over(
    two: Two, tmp_path: Path
) -> None:
    """A replica that is deleted while it is read leaves the next."""
    made, ahead, behind = two

    def delete(file: FileInfo, start: int) -> None:
        if start == 0 and file.max_txid == 3:
            ahead.delete(ahead.list_all())

    ahead.before_get = delete
    assert restore([ahead, behind], tmp_path / "restored.db").source == behind.name
    assert (tmp_path / "restored.db").read_bytes() == made.images[6]


def test_if_all_fail_the_first_error_has_notes_on_the_others(
    two: Two, tmp_path: Path
) -> None:
    """Nothing about the other replicas is lost."""
    _, ahead, behind = two
    ahead.down = behind.down = True
    with pytest.raises(StoreError, match=f"{ahead.name} is down") as caught:
        restore([ahead, behind], tmp_path / "restored.db")
    assert caught.value.__notes__ == [f"{behind.name}: {behind.name} is down"]


@pytest.mark.parametrize("missing", ["error", "skip"])
def test_unreachable_replica_is_never_a_missing_backup(
    two: Two, tmp_path: Path, missing: Any
) -> None:
    """An application must not start afresh because its network is down."""
    _, down, _ = two
    empty = LTXStore.open(tmp_path / "empty")
    down.down = True
    for replicas in (down, [empty, down], [down, empty]):
        with pytest.raises(StoreError, match="is down"):
            restore(replicas, tmp_path / "restored.db", missing=missing)


def test_empty_replica_beside_a_full_one_does_not_matter(
    two: Two, tmp_path: Path
) -> None:
    """A replica that was just added has nothing yet."""
    _, full, _ = two
    empty = LTXStore.open(tmp_path / "empty")
    assert restore([empty, full], tmp_path / "restored.db").source == full.name
    with pytest.raises(NotRestorableError, match="transaction 99"):
        restore([empty, full], tmp_path / "other.db", txid=99, missing="skip")
    result = restore([empty, empty], tmp_path / "other.db", missing="skip")
    assert result.reason == "missing"


def test_wrong_final_checksum_falls_back_to_the_other_replica(
    two: Two, tmp_path: Path
) -> None:
    """A replica whose files make another database is as good as damaged."""
    made, ahead, behind = two
    last = ahead.list_all()[-1]
    before, pages = ltx.decode(made.files[8, 8])
    number, content = pages[-1]
    forged = ltx.encode(before, [*pages[:-1], (number, content[::-1])])
    overwrite(ahead, last, forged)
    with pytest.raises(ChecksumMismatchError):
        restore(ahead, tmp_path / "restored.db", verify=None)
    assert restore([ahead, behind], tmp_path / "restored.db").source == behind.name
    with sqlite3.connect(tmp_path / "restored.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
