"""Names and times of the files of Litestream 0.3."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sqlitereplica.errors import StoreError
from sqlitereplica.store import GenerationFile, LTXStore
from sqlitereplica.store.generations import generation_files

GENERATION = "0123456789abcdef"


def parse(name: str, root: str = "r", **entry: Any) -> list[GenerationFile]:
    """What is made of one name in a listing."""
    return generation_files(root, [{"name": name, "size": 5, "mtime": 1.5, **entry}])


@given(
    generation=st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    index=st.integers(0, 2**32 - 1),
    offset=st.none() | st.integers(0, 2**60 - 1),
)
@example(GENERATION, 0, 2**32)
@example(GENERATION, 2**32 - 1, 2**60 - 1)
def test_key_is_parsed_back(generation: str, index: int, offset: int | None) -> None:
    """Whatever the numbers; offsets beyond 4 GiB have more digits."""
    file = GenerationFile(generation, index, offset, 5, 1500, 1500)
    assert parse(file.key("/some/r"), "/some/r") == [file]
    assert parse(file.key("/some/r").lstrip("/"), "/some/r") == [file]


@pytest.mark.parametrize(
    "name",
    [
        f"{GENERATION}/wal/00000000_00000000.wal.lz4",
        f"s/generations/{GENERATION}/wal/00000000_00000000.wal.lz4",
        f"r/generations/x/{GENERATION}/wal/00000000_00000000.wal.lz4",
        f"r/generations/{GENERATION}/wal/../wal/00000000_00000000.wal.lz4",
        f"r/generations/{GENERATION}/wal/0000000g_00000000.wal.lz4",
        f"r/generations/{GENERATION}/wal/00000000_0000.wal.lz4",
        f"r/generations/{GENERATION}/wal/00000000_000000000.wal.lz4",
        f"r/generations/{GENERATION}/wal/00000000_{'f' * 16}.wal.lz4",
        f"r/generations/{GENERATION}/wal/00000000_00000000.wal.lz4\n",
        f"r/generations/{GENERATION}/wal/00000000.wal.lz4",
        f"r/generations/{GENERATION}/snapshots/0.snapshot.lz4",
        f"r/generations/{GENERATION}/snapshots/00000000.snapshot",
        f"r/generations/{GENERATION}f/snapshots/00000000.snapshot.lz4",
        "r/generations",
        "",
    ],
)
def test_foreign_name_is_left_out(name: str) -> None:
    """Only names that their numbers make again, in the folder meant."""
    assert parse(name) == []


def test_folder_with_the_name_of_a_file_is_left_out() -> None:
    """Object stores have such."""
    name = f"r/generations/{GENERATION}/snapshots/00000000.snapshot.lz4"
    assert parse(name, type="directory") == []
    assert len(parse(name, type="file")) == 1


@pytest.mark.parametrize(
    ("time", "timestamp", "committed_by"),
    [
        (1700.25, 1_700_250, 1_700_250),
        (1700.2501, 1_700_250, 1_700_251),
        (1700.2509, 1_700_251, 1_700_251),
        (1700.0, 1_700_000, 1_700_999),
        (datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC), 7000, 7999),
        (datetime(1970, 1, 1, 0, 0, 7, 5000, tzinfo=UTC), 7005, 7005),
    ],
)
def test_time_is_rounded_up(time: Any, timestamp: int, committed_by: int) -> None:
    """What is restored "before" a time is certain to be from before it."""
    name = f"r/generations/{GENERATION}/snapshots/00000000.snapshot.lz4"
    [file] = parse(name, mtime=time)
    assert (file.timestamp, file.committed_by) == (timestamp, committed_by)


def test_store_that_tells_no_time_is_seen() -> None:
    """Then the time is 0."""
    name = f"r/generations/{GENERATION}/snapshots/00000000.snapshot.lz4"
    [file] = generation_files("r", [{"name": name, "size": 5}])
    assert file.timestamp == 0


def test_bucket_without_a_path_has_the_old_keys() -> None:
    """Where the files of Litestream 0.5 begin with "./", those of 0.3 do not."""
    file = GenerationFile(GENERATION, 1, 2, 5, 1500, 1500)
    key = f"bucket/generations/{GENERATION}/wal/00000001_00000002.wal.lz4"
    assert file.key("bucket/.") == key
    assert parse(key, "bucket/.") == [file]


def test_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    """A file in the place of a folder is nothing that can be overlooked."""
    (tmp_path / "generations" / GENERATION).mkdir(parents=True)
    (tmp_path / "generations" / GENERATION / "wal").write_bytes(b"")
    with pytest.raises(StoreError, match="Not a directory"):
        LTXStore.open(tmp_path).list_generations()


def test_times_of_a_local_folder_are_exact(tmp_path: Path) -> None:
    """Nanoseconds are rounded up, not cut off."""
    path = tmp_path / "generations" / GENERATION / "snapshots" / "00000001.snapshot.lz4"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"12345")
    os.utime(path, ns=(1_600_000_000_123_456_789,) * 2)
    [file] = LTXStore.open(tmp_path).list_generations()
    assert (file.timestamp, file.committed_by) == (1_600_000_000_123, 1_600_000_000_124)
