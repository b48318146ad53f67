"""Which file a mirror is, and which of its dated files may go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sqlitereplica import Mirror, Replica, Replicator
from sqlitereplica.replicate.mirror import dated_files, outdated
from sqlitereplica.replicate.options import replica_values

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)


def test_path_is_that_of_the_time_in_utc(tmp_path: Path) -> None:
    """A dated path names a file for each period; a plain one is always the same."""
    plain = Mirror(tmp_path / "a.db")
    dated = Mirror(tmp_path / "%Y" / "app-%m-%d.db", keep=3)
    seconds = NOW.timestamp()
    assert plain.path_at(seconds) == plain.path_at(0) == str(tmp_path / "a.db")
    assert dated.path_at(seconds) == str(tmp_path / "2027" / "app-01-15.db")
    assert dated.path_at(seconds + 86400) == str(tmp_path / "2027" / "app-01-16.db")
    assert (plain.is_dated, dated.is_dated) == (False, True)
    assert repr(Mirror("a.db")) == "Mirror('a.db')"
    assert Mirror("a.db", name="copy").display_name == "copy"


@pytest.mark.parametrize(
    "arguments",
    [
        {"path": ""},
        {"path": "a.db", "keep": 3},
        {"path": "%Y-%m-%d.db", "keep": 0},
        {"path": "%Y-%m-%d.db", "keep": True},
        {"path": "%Y-%m-%d.db", "keep": "soon"},
        {"path": "%Y/%Y-%m-%d.db"},
        {"path": "%Q.db"},
    ],
)
def test_mirror_that_makes_no_sense_is_refused(arguments: dict[str, object]) -> None:
    """No path, keep without dates or of nothing, a time that cannot be read again."""
    with pytest.raises(ValueError):
        Mirror(**arguments)  # type: ignore[arg-type]


def test_replicas_and_mirrors_are_told_apart_and_differ_in_name(tmp_path: Path) -> None:
    """Both are given in one list; a mirror of the database itself is refused."""
    mirror, replica = Mirror("a.db"), Replica("./b")
    assert replica_values([mirror, "./b"]) == ((replica,), (mirror,))
    assert replica_values(mirror) == ((), (mirror,))
    with pytest.raises(ValueError):
        replica_values([Mirror("a.db"), Mirror("a.db")])
    with pytest.raises(ValueError):
        Replicator(tmp_path / "a.db", [Mirror(tmp_path / "a.db")])


def test_dated_files_are_found_by_their_names_only(tmp_path: Path) -> None:
    """Neighbours, folders and what only resembles one are not among them."""
    pattern = str(tmp_path / "%Y" / "app-%m-%d.db")
    (tmp_path / "2027").mkdir()
    for name in ("app-01-14.db", "app-01-15.db", "app-1-3.db", "app-02-31.db", "x.db"):
        (tmp_path / "2027" / name).touch()
    (tmp_path / "2027" / "app-01-16.db").mkdir()
    found = sorted(dated_files(pattern))
    assert [time.day for time, _ in found] == [14, 15]
    assert found[0][1] == str(tmp_path / "2027" / "app-01-14.db")


@pytest.mark.parametrize(
    ("keep", "going"),
    [
        (None, []),
        (1, [12, 13, 14]),
        (3, [12]),
        (9, []),
        ("30h", [12, 13]),
        ("36h", [12]),
        ("7h", [12, 13, 14]),
        ("0s", [12, 13, 14]),
        (timedelta(days=9), []),
    ],
)
def test_only_what_is_past_its_time_goes(
    keep: int | str | timedelta | None, going: list[int]
) -> None:
    """The present file and one of the future stay; a file is as old as its end."""
    days = [12, 13, 14, 15, 17]
    files = [(datetime(2027, 1, d, tzinfo=UTC), f"/m/{d}.db") for d in days]
    found = outdated(files, keep, current="/m/15.db", now=NOW)
    assert sorted(found) == [f"/m/{day}.db" for day in going]
