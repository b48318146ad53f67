"""Restore points: what they say of a replica, how they are looked up and shown."""

from __future__ import annotations

import json
import os
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.shortfiles import START, put_file, put_level_0

from sqlitereplica.errors import NotRestorableError, StoreError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore.points import (
    RestorePoint,
    RestorePoints,
    points_of,
    restore_points,
)
from sqlitereplica.store import LTXStore, Pin, Replica
from sqlitereplica.store.pins import put_pin
from sqlitereplica.store.reach import Gap, reach, to_datetime

DAY = 86_400_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A snapshot of 1 to 3, then 4 and 5 merged, 6, and a leftover of 8 after a gap."""
    store = LTXStore.open(tmp_path / "replica")
    put_level_0(store, 1, 1)
    put_file(store, 9, 1, 3)
    put_file(store, 1, 4, 5)
    put_level_0(store, 6, 6)
    put_level_0(store, 8, 8)
    return tmp_path / "replica"


def at_ms(milliseconds: int) -> datetime:
    """A time of a point."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


def second(number: float) -> datetime:
    """A time in the replica: transaction n is of second n."""
    return at_ms(START + round(1000 * number))


def listed(
    files: Sequence[FileInfo], pins: Sequence[Pin] = (), name: str = "replica"
) -> RestorePoints:
    """The points of a listing that was made up."""
    return points_of(name, files, reach(files), pins, database_size=4096)


def make_pin(name: str, txid: int) -> Pin:
    """A pin of a second's transaction."""
    return Pin(name=name, txid=txid, time=second(txid), created=second(100))


# -- what they say ---------------------------------------------------------------------


def test_points_say_what_each_state_is_and_costs(folder: Path) -> None:
    """All states of the listing with all that is known of them."""
    store = LTXStore.open(folder)
    put_pin(store, "release", 5)
    sizes = {(f.level, f.max_txid): f.size for f in store.list_all()}
    points = restore_points(folder)
    snapshot, merged, last = sizes[9, 3], sizes[1, 5], sizes[0, 6]
    assert list(points) == [
        RestorePoint(
            txid=1,
            min_txid=1,
            time=second(1),
            level=0,
            bytes_to_fetch=sizes[0, 1],
            files=1,
        ),
        RestorePoint(
            txid=3,
            min_txid=2,
            time=second(3),
            level=9,
            bytes_to_fetch=snapshot,
            files=1,
        ),
        RestorePoint(
            txid=5,
            min_txid=4,
            time=second(5),
            level=1,
            bytes_to_fetch=snapshot + merged,
            files=2,
            pins=("release",),
        ),
        RestorePoint(
            txid=6,
            min_txid=6,
            time=second(6),
            level=0,
            bytes_to_fetch=snapshot + merged + last,
            files=3,
        ),
    ]
    assert points.replica == store.name
    assert (points.total_files, points.total_bytes) == (5, sum(sizes.values()))
    assert points.database_size == 1024
    assert points.gaps == (Gap(7, 8),)
    assert [pin.name for pin in points.pins] == ["release"]
    assert (points.earliest, points.latest) == (points[0], points[-1])
    assert points.window == timedelta(seconds=5)


def test_empty_replica_has_no_points(tmp_path: Path) -> None:
    """Nothing to restore is an answer, not an error."""
    points = restore_points(tmp_path / "nothing")
    assert len(points) == 0 and list(points) == [] and not points
    assert (points.earliest, points.latest, points.database_size) == (None, None, None)
    assert points.window == timedelta(0)
    assert "none" in repr(points) and "none" in points._repr_html_()
    assert json.loads(points.to_json())["points"] == []
    with pytest.raises(NotRestorableError) as caught:
        points.at("5 minutes ago")
    assert caught.value.kind == "empty"
    with pytest.raises(NotRestorableError):
        points.nearest(txid=1)


def test_replica_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """No answer is not an empty list."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        restore_points(tmp_path / "file" / "replica")


def test_replica_is_taken_as_restore_takes_it(folder: Path) -> None:
    """A folder, a URL, a Replica, a store."""
    for source in (folder, folder.as_uri(), Replica(folder), LTXStore.open(folder)):
        assert len(restore_points(source)) == 4


def test_times_are_those_that_restores_go_by(folder: Path) -> None:
    """A copy has other times in its listing; they are used only when that is said."""
    for file in folder.rglob("*.ltx"):
        os.utime(file, (2_000_000_000, 2_000_000_000))
    assert [p.time for p in restore_points(folder)] == [second(n) for n in (1, 3, 5, 6)]
    fast = restore_points(folder, accurate=False)
    assert {p.time for p in fast} == {at_ms(2_000_000_000_000)}


def test_without_exact_times_one_header_is_read(folder: Path) -> None:
    """The quick way is two listings and the size of the newest state."""
    store = LTXStore.open(folder)
    restore_points(store, accurate=False)
    assert store.requests == {"list": 2, "get": 1}


def test_damaged_newest_file_leaves_the_database_size_unknown(folder: Path) -> None:
    """All else is still shown: this is what people look at when something is wrong."""
    newest = folder / "ltx" / "0" / f"{6:016x}-{6:016x}.ltx"
    newest.write_bytes(b"?" * 200)
    points = restore_points(folder)
    assert points.database_size is None
    assert [point.txid for point in points] == [1, 3, 5, 6]


def test_pins_that_are_damaged_or_of_lost_states_are_shown_as_that(
    folder: Path,
) -> None:
    """What a pin promises and the replica cannot keep is said, not left out."""
    store = LTXStore.open(folder)
    put_pin(store, "kept", 6)
    put_pin(store, "lost", 1)
    store.put_side("pins", "broken", b"?")
    store.delete([file for file in store.list_all() if file.max_txid == 1])
    points = restore_points(folder)
    assert [pin.name for pin in points.lost_pins] == ["lost"]
    assert points.damaged_pins == ("broken",)
    assert "lost (transaction 1, files are missing)" in repr(points)
    assert "cannot be read: broken" in repr(points)
    assert points.at("kept").txid == 6
    with pytest.raises(NotRestorableError) as caught:
        points.at("lost")
    assert caught.value.kind == "txid"


def test_coarser_history_is_no_gap() -> None:
    """Merged files, and snapshots whose increments were dropped, are as they should be."""
    files = [
        FileInfo(9, 1, 10, 1, 10),
        FileInfo(9, 1, 20, 1, 20),
        FileInfo(2, 19, 25, 1, 25),
        FileInfo(0, 3, 3, 1, 3),
    ]
    points = listed(files)
    assert points.gaps == ()
    assert [(p.min_txid, p.txid) for p in points] == [(1, 10), (11, 20), (21, 25)]


def test_rest_of_a_level_that_was_merged_is_in_no_gap() -> None:
    """Litestream deletes level-0 files one by one, past the borders of merged ones."""
    merged = [FileInfo(1, 21, 28, 1, 28), FileInfo(1, 29, 35, 1, 35)]
    single = [FileInfo(0, txid, txid, 1, txid) for txid in range(31, 39)]
    points = listed([FileInfo(9, 1, 20, 1, 20), *merged, *single])
    assert points.gaps == ()
    assert [point.txid for point in points] == [20, 28, 35, 36, 37, 38]


def test_files_that_nothing_leads_to_are_in_gaps() -> None:
    """Between two states, at the end, and where there is no state at all."""
    lonely = FileInfo(0, 14, 15, 1, 15)
    between = [FileInfo(9, 1, 10, 1, 10), lonely, FileInfo(9, 1, 20, 1, 20)]
    assert listed(between).gaps == (Gap(11, 19),)
    assert listed([FileInfo(9, 1, 10, 1, 10), lonely]).gaps == (Gap(11, 15),)
    assert listed([lonely]).gaps == (Gap(1, 15),)


# -- looking up ------------------------------------------------------------------------


def test_point_at_a_time_is_the_last_before_it(folder: Path) -> None:
    """In every form that restore takes; a time equal to that of a state is before it."""
    points = restore_points(folder)
    assert points.at(second(5.001)).txid == 5
    assert points.at(second(5)).txid == 3
    assert points.at(second(4).isoformat()).txid == 3
    assert points.at((START + 1500) / 1000).txid == 1
    with pytest.raises(NotRestorableError) as caught:
        points.at(second(1))
    assert caught.value.kind == "time" and caught.value.after is not None
    with pytest.raises(ValueError, match="no time zone"):
        points.at("2026-01-31")
    with pytest.raises(NotRestorableError, match="no pin is named 'yesterday'"):
        points.at("yesterday")


def test_time_after_all_files_finds_the_gap_as_restore_does(folder: Path) -> None:
    """What was asked for is the newest state, and that is not there."""
    points = restore_points(folder)
    with pytest.raises(NotRestorableError) as caught:
        points.at("1 minute ago")
    assert caught.value.kind == "gap"
    assert points.at(second(7)).txid == 6


def test_nearest_point_is_on_either_side(folder: Path) -> None:
    """In time and in transactions; of two as near the earlier one."""
    points = restore_points(folder)
    assert points.nearest(second(3.9)).txid == 3
    assert points.nearest(second(4)).txid == 3
    assert points.nearest(second(4.1)).txid == 5
    assert points.nearest("520 weeks ago").txid == 1
    assert points.nearest(second(10**6)).txid == 6
    assert [points.nearest(txid=n).txid for n in (1, 2, 3, 4, 99)] == [1, 1, 3, 3, 6]
    for arguments in ({}, {"at": second(1), "txid": 1}):
        with pytest.raises(ValueError, match="at or txid"):
            points.nearest(**arguments)  # type: ignore[arg-type]


def test_point_is_found_by_transaction(folder: Path) -> None:
    """Exactly, or the error names the neighbours with their times."""
    points = restore_points(folder)
    assert points.find(5) is points[2]
    with pytest.raises(NotRestorableError, match=r"txid=3 of .*txid=5 of") as caught:
        points.find(4)
    assert caught.value.before is not None
    assert caught.value.before.time == second(3)


def test_pin_is_found_by_name(folder: Path) -> None:
    """As a time, wherever a time is asked for."""
    put_pin(LTXStore.open(folder), "release", 3)
    points = restore_points(folder)
    assert points.at("release") == points.nearest("release") == points.find(3)
    with pytest.raises(NotRestorableError, match="the pins are release") as caught:
        points.at("relaese")
    assert caught.value.kind == "pin"


def test_points_are_a_sequence(folder: Path) -> None:
    """Of frozen values, with slices, and equal if they say the same."""
    points = restore_points(folder)
    assert points[-1].txid == 6 and [p.txid for p in points[1:3]] == [3, 5]
    assert points[0] in points and points.index(points[2]) == 2
    assert points == restore_points(folder)
    assert hash(points) == hash(restore_points(folder))
    with pytest.raises(AttributeError):
        points.replica = "x"  # type: ignore[misc]


# -- other forms -----------------------------------------------------------------------


def many(count: int = 20_000) -> list[FileInfo]:
    """A long history: a day for each hundred transactions."""
    times = [START + n * DAY // 100 for n in range(count + 1)]
    files = [FileInfo(0, n, n, 1000, times[n]) for n in range(1, count + 1)]
    return files + [FileInfo(9, 1, n, 10**6, times[n]) for n in range(100, count, 100)]


def test_text_is_a_few_lines_however_many_points(folder: Path) -> None:
    """What somebody sees who types the name of the variable."""
    put_pin(LTXStore.open(folder), "release", 5)
    text = repr(restore_points(folder))
    for part in (
        "4 of transactions 1 to 6",
        "5 s, 2023-11-14 22:13:21.000Z to 2023-11-14 22:13:26.000Z",
        "release (transaction 5)",
        "transactions 7 to 8: files are missing",
        "1.0 KiB",
    ):
        assert part in text
    pins = [make_pin(f"p{n}", n + 1) for n in range(50)]
    assert repr(listed(many(), pins)).count("\n") < 10
    assert len(repr(listed(many(), pins))) < 1000


@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_drawing_is_well_formed_and_bounded(count: int) -> None:
    """Valid XML without scripts, styles or anything fetched, whatever is drawn."""
    pins = [make_pin(f"p{n}", n) for n in range(1, count + 1)]
    missing = {3: [2], 1000: range(50, 60)}.get(count, [])
    files = [file for file in many(count) if file.max_txid not in missing]
    html = listed(files, pins)._repr_html_()
    start, end = html.index("<svg"), html.index("</svg>") + 6
    drawing = ElementTree.fromstring(html[start:end])
    tags = {element.tag.rpartition("}")[2] for element in drawing.iter()}
    assert tags <= {"svg", "path", "rect", "circle", "text", "title"}
    for forbidden in ("<script", "<style", "href", "src=", "url(", "@import", " on"):
        assert forbidden not in html.replace(" one", "")
    assert len(html) < 100_000


def test_size_of_the_drawing_does_not_grow_with_the_points() -> None:
    """A notebook keeps its output in the file."""
    files = many()
    gaps = [f for f in files if f.level == 9 or f.max_txid % 100 > 50]
    assert len(listed(files)._repr_html_()) < 100_000
    assert len(listed(gaps).gaps) > 100
    assert len(listed(gaps)._repr_html_()) < 150_000


def test_gaps_and_pins_are_drawn_where_they_are() -> None:
    """Each has its title, at its place in time."""
    files = [
        FileInfo(9, 1, 1, 1, START),
        FileInfo(0, 2, 2, 1, START + 10_000),
        FileInfo(0, 5, 5, 1, START + 40_000),
        FileInfo(9, 1, 6, 1, START + 100_000),
    ]
    html = listed(files, [make_pin("middle", 2)])._repr_html_()
    drawing = html[html.index("<svg") : html.index("</svg>")]
    # From 10 % to the end of 704 pixels, which begin at the 8th.
    assert '<rect x="78.4" y="24" width="633.6"' in drawing
    assert "<title>transactions 3 to 5: files are missing</title>" in drawing
    assert '<circle cx="78.4"' in drawing and ">middle</text>" in drawing


def test_text_from_a_replica_is_escaped() -> None:
    """A name is never markup. (Pins have narrow names, but values can be made up.)"""
    evil = "</title></svg><script>alert(1)</script>\"'&"
    html = listed(many(5), [make_pin(evil, 3)], name=evil)._repr_html_()
    assert "<script" not in html and "&lt;script&gt;" in html
    assert html.count("</svg>") == 1


def test_times_of_all_sizes_are_drawn() -> None:
    """From one millisecond to all years there are, and hostile ones beyond."""
    for first, last in [(0, 0), (0, 1), (0, 5000), (-(10**18), 10**18), (0, 10**12)]:
        files = [FileInfo(0, 1, 1, 1, first), FileInfo(0, 2, 2, 1, last)]
        html = listed(files)._repr_html_()
        ElementTree.fromstring(html[html.index("<svg") : html.index("</svg>") + 6])


def test_json_has_everything(folder: Path) -> None:
    """For dashboards and scripts."""
    put_pin(LTXStore.open(folder), "release", 5)
    points = restore_points(folder)
    data = json.loads(points.to_json())
    assert data["replica"] == points.replica
    assert data["gaps"] == [{"min_txid": 7, "max_txid": 8}]
    assert data["points"][2] == {
        "txid": 5,
        "min_txid": 4,
        "time": "2023-11-14T22:13:25Z",
        "level": 1,
        "bytes_to_fetch": points[2].bytes_to_fetch,
        "files": 2,
        "pins": ["release"],
    }
    assert data["pins"][0]["name"] == "release"
    assert (data["database_size"], data["window_seconds"]) == (1024, 5.0)
    assert (data["lost_pins"], data["damaged_pins"]) == ([], [])


def test_points_become_a_data_frame(folder: Path) -> None:
    """One row for each point, times with their zone, of any year."""
    pandas = pytest.importorskip("pandas")
    put_pin(LTXStore.open(folder), "release", 5)
    frame = restore_points(folder).to_pandas()
    assert list(frame.columns) == list(RestorePoint.__slots__)
    assert list(frame.txid) == [1, 3, 5, 6]
    assert frame.time.dtype == "datetime64[ms, UTC]"
    assert frame.time[2] == pandas.Timestamp(second(5))
    assert frame.pins[2] == ("release",)
    far = listed([FileInfo(0, 1, 1, 1, 10**18)]).to_pandas()
    assert far.time[0].to_pydatetime() == to_datetime(10**18)
    assert list(listed([]).to_pandas().time) == []


def test_without_pandas_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is no dependency."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        listed([]).to_pandas()
