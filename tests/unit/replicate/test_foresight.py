"""When history has something to do if nothing is committed any more."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.stepping import FakeClock

from sqlitereplica.ltx import FileInfo
from sqlitereplica.policy import Retention
from sqlitereplica.replicate.catalog import Catalog
from sqlitereplica.replicate.foresight import foresee
from sqlitereplica.replicate.retaining import RetentionTask

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
NOON = 1_706_616_000_000  # 2024-01-30, 12:00 UTC
LEVELS = (30 * SECOND, 5 * MINUTE, HOUR)


def file(level: int, low: int, high: int, time: int, size: int = 5000) -> FileInfo:
    """A file of a replica."""
    return FileInfo(level, low, high, size, time)


def due(*files: FileInfo, now: int = NOON, **options: Any) -> int | None:
    """When there is something to do."""
    given: dict[str, Any] = {
        "levels": LEVELS,
        "snapshot_interval": DAY,
        "amplification": 2.0,
        "policy": Retention(),
        **options,
    }
    return foresee(files, now, **given)


def test_a_replica_without_work_is_never_tended() -> None:
    """An empty one, and one that holds a single image."""
    assert due() is None
    assert due(file(0, 1, 1, NOON)) is None
    assert due(file(9, 1, 7, NOON)) is None


def test_what_waits_is_merged_when_the_highest_level_is_due() -> None:
    """Once, at the next full hour behind the newest file."""
    files = [file(9, 1, 1, NOON), *(file(0, n, n, NOON + n) for n in (2, 3, 4))]
    assert due(*files, snapshot_interval=None) == NOON + HOUR + 1


def test_one_file_that_waits_alone_stays_where_it_is() -> None:
    """Merged with nothing it would be the same again; the snapshot comes in its time."""
    files = [file(9, 1, 1, NOON), file(0, 2, 2, NOON + 5)]
    midnight = NOON + DAY // 2
    assert due(*files) == midnight + 1
    policy = Retention(delete=False)
    assert due(*files, snapshot_interval=None, policy=policy) is None


def test_work_that_is_overdue_is_due_now() -> None:
    """A time not after the present one."""
    files = [file(9, 1, 1, NOON), *(file(0, n, n, NOON + n) for n in (2, 3, 4))]
    now = NOON + 2 * HOUR
    found = due(*files, now=now)
    assert found is not None and found <= now


def test_a_restore_that_reads_much_is_made_cheap_soon() -> None:
    """Once the newest files are no longer too new to count."""
    files = [file(9, 1, 1, NOON, 10), file(0, 2, 2, NOON, 5 << 20)]
    assert due(*files) == NOON + 61 * SECOND
    assert due(*files, now=NOON + 2 * MINUTE) == NOON + 2 * MINUTE


def test_a_gap_is_due_now() -> None:
    """The newest state cannot be restored: somebody has to look at it."""
    assert due(file(9, 1, 1, NOON), file(0, 5, 5, NOON)) == NOON


def test_retention_comes_when_all_spans_have_passed() -> None:
    """Once, a window after the newest file; not at all if nothing may be deleted."""
    files = [file(9, 1, 3, NOON), *(file(0, n, n, NOON) for n in (1, 2, 3))]
    files.append(file(1, 1, 3, NOON))
    options = {"snapshot_interval": None, "levels": (30 * SECOND,)}
    policy = Retention(window="2h")
    assert due(*files, policy=policy, **options) == NOON + 2 * HOUR + 1
    later = NOON + 3 * HOUR  # what is unneeded already, its grace has to end: see below
    assert due(*files, policy=policy, now=later, **options) is None
    policy = Retention(window="2h", delete=False)
    assert due(*files, policy=policy, **options) is None


# -- since when files are not needed --------------------------------------------------------


def task(folder: Path, clock: FakeClock, grace: str = "1h") -> RetentionTask:
    """A retention task over a replica of which an old file is not needed."""
    catalog = Catalog()
    for info in (file(0, 1, 1, NOON), file(9, 1, 2, NOON + 5), file(0, 2, 2, NOON + 5)):
        catalog.add(info)
    return RetentionTask(
        cast(Any, SimpleNamespace(catalog=catalog)),
        Retention(window="1m", fine="1m", grace=grace),
        on_lost=lambda info, why: None,
        is_healing=lambda: False,
        now_ms=clock.now_ms,
        clock=clock,
        notes=folder / "unneeded",
    )


def test_the_grace_goes_on_after_a_restart(tmp_path: Path) -> None:
    """It counts from when the file was first found unneeded, in whichever life."""
    clock = FakeClock()
    first = task(tmp_path, clock)
    assert first.rest_of_grace() == pytest.approx(300)  # of level 0: five minutes
    clock.advance(100)
    first.close()
    clock.advance(50)
    second = task(tmp_path, clock)
    assert second.rest_of_grace() == pytest.approx(150, abs=0.01)
    clock.advance(150.01)
    assert second.look() == 0.0


def test_a_damaged_note_only_begins_the_grace_anew(tmp_path: Path) -> None:
    """Nothing is deleted sooner for it; nor by a clock that was set back meanwhile."""
    clock = FakeClock()
    for content in (b"", b"[]", b'{"0-1-1": "x"}', b'{"0-1-1": 99999999999999}'):
        (tmp_path / "unneeded").write_bytes(content)
        assert task(tmp_path, clock).rest_of_grace() == pytest.approx(300)


def test_nothing_unneeded_is_nothing_noted(tmp_path: Path) -> None:
    """Without files to forget there is no note, and no deadline."""
    clock = FakeClock()
    found = task(tmp_path, clock)
    found._shop.catalog.replace([file(0, 1, 1, NOON)], found._shop.catalog.version)
    assert found.rest_of_grace() is None
    found.close()
    assert not (tmp_path / "unneeded").exists()
