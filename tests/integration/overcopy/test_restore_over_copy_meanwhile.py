"""Restores over an old copy: what may happen meanwhile, and to the copy itself."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.callbacks import Callback
from support.overcopy import LAST, PAGE_SIZE, copied, over, reasons, restored
from support.recording import Recording
from support.troubled import TroubledStore, overwrite

from sqlitereplica import ltx
from sqlitereplica.errors import DatabaseStateError
from sqlitereplica.restore.oldcopy import OldCopy
from sqlitereplica.store import LTXStore

# -- while it happens ------------------------------------------------------------------


def test_copy_that_changes_while_it_is_used_is_noticed(
    recording: Recording,
    store: TroubledStore,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody opens, writes and closes it after its pages were compared."""
    restored(store, path, 4)
    copy = OldCopy.copy_into

    def change_first(*arguments: Any) -> None:
        with path.open("r+b") as file:
            file.seek(300 * PAGE_SIZE)
            file.write(os.urandom(10))
        copy(*arguments)

    monkeypatch.setattr(OldCopy, "copy_into", change_first)
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST]
    assert result.pages_reused == 0
    assert "changed while it was read" in reasons(caplog)[0]


def test_copy_that_is_cut_while_it_is_used_is_noticed(
    recording: Recording,
    store: TroubledStore,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A VACUUM may make it shorter."""
    restored(store, path, 4)
    copy = OldCopy.copy_into

    def cut_first(*arguments: Any) -> None:
        os.truncate(path, 100 * PAGE_SIZE)
        copy(*arguments)

    monkeypatch.setattr(OldCopy, "copy_into", cut_first)
    over(store, path)
    assert path.read_bytes() == recording.images[LAST]


WRITER = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    c.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError:
    sys.exit(5)
"""


def test_locks_of_a_connection_opened_meanwhile_survive(
    recording: Recording, store: TroubledStore, path: Path
) -> None:
    """The old file is not closed under a connection of this process: others stay out."""
    restored(store, path, 4)
    connections: list[sqlite3.Connection] = []

    def begin(file: ltx.FileInfo, start: int) -> None:
        if not connections and file.max_txid == LAST and start == 0:
            connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute("BEGIN IMMEDIATE")
            connections.append(connection)

    store.before_get = begin
    with pytest.raises(DatabaseStateError):
        over(store, path)
    command = [sys.executable, "-c", WRITER, path]
    assert subprocess.run(command, check=False).returncode == 5
    connections[0].execute("ROLLBACK")
    assert subprocess.run(command, check=False).returncode == 0
    connections[0].close()


@pytest.mark.parametrize("keep", [False, True])
def test_replaced_file_is_let_go(
    recording: Recording, store: TroubledStore, path: Path, keep: bool
) -> None:
    """Its room is free again at once, and a kept one may be replaced by anybody."""
    restored(store, path, 4)
    over(store, path, keep_old=keep)
    folder = "/proc/self/fd"
    targets = [
        os.readlink(f"{folder}/{fd}")
        for fd in os.listdir(folder)
        if os.path.lexists(f"{folder}/{fd}")
    ]
    assert [t for t in targets if t.startswith(os.fspath(path.parent))] == []


def test_files_that_go_away_are_looked_for_anew(
    recording: Recording, store: TroubledStore, path: Path
) -> None:
    """A compaction in the middle of it: the way is found again in the new listing."""
    restored(store, path, 4)

    def compact(file: ltx.FileInfo, start: int) -> None:
        if (file.level, file.max_txid) == (0, 5):
            store.before_get = None
            merged = recording.file(5, 6)
            store.put(1, 5, 6, merged, timestamp=file.timestamp)
            store.delete(f for f in store.list_level(0) if f.max_txid in (5, 6))

    store.before_get = compact
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST]
    assert result.files == 1 and result.pages_reused > 480


@pytest.mark.parametrize("noted", [True, False])
def test_progress_ends_at_what_was_fetched(
    recording: Recording, store: TroubledStore, path: Path, noted: bool
) -> None:
    """The callback's total is met exactly, however the restore went."""
    if noted:
        restored(store, path, 2)
    else:
        copied(recording, path, 2)
    callback = Callback()
    result = over(store, path, callback=callback)
    assert callback.size == callback.value == result.bytes_fetched > 0
    assert result.pages_reused > 0


# -- the copy itself -------------------------------------------------------------------


def refuse(*_: Any) -> int:
    """A system that cannot copy between two files."""
    raise OSError(errno.EXDEV, "no")


def give_up(*_: Any) -> int:
    """One that copies nothing."""
    return 0


@pytest.mark.parametrize("instead", [refuse, give_up, None])
def test_copying_needs_no_help_of_the_system(
    recording: Recording,
    store: TroubledStore,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    instead: Callable[..., int] | None,
) -> None:
    """Where files cannot share blocks they are read and written."""
    if instead is None:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    else:
        monkeypatch.setattr(os, "copy_file_range", instead, raising=False)
    restored(store, path, 4)
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST]
    assert result.pages_reused > 480


def test_system_without_positional_reads_restores_in_full(
    recording: Recording,
    store: TroubledStore,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As Windows, where the old file would have to be opened in another way."""
    restored(store, path, 4)
    monkeypatch.delattr(os, "pread")
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST]
    assert result.pages_reused == 0 and len(reasons(caplog)) == 1


def test_copy_that_cannot_be_read_is_replaced_in_full(
    recording: Recording,
    store: TroubledStore,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A disk that fails there is a reason more to restore."""
    restored(store, path, 4)
    pread = os.pread

    def fail(fd: int, count: int, offset: int) -> bytes:
        if offset > 100 * PAGE_SIZE and os.path.samestat(os.fstat(fd), path.stat()):
            raise OSError(errno.EIO, "bad sector")
        return pread(fd, count, offset)

    monkeypatch.setattr(os, "pread", fail)
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST]
    assert result.pages_reused == 0
    assert "bad sector" in reasons(caplog)[0]


def test_disk_without_room_is_an_error_of_the_full_restore(
    recording: Recording,
    store: TroubledStore,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the new file needs is asked for before anything is copied."""
    restored(store, path, 4)
    usage = type("usage", (), {"total": 10**9, "free": 4096})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="4096 are free"):
        over(store, path)
    assert path.read_bytes() == recording.images[4]
    assert os.listdir(path.parent) == ["app.db"]


def test_filesystem_without_attributes_has_no_notes(
    recording: Recording,
    store: TroubledStore,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then page checksums alone tell, as after any copying."""
    monkeypatch.setattr(os, "setxattr", refuse, raising=False)
    restored(store, path, LAST)
    assert over(store, path).restored
    monkeypatch.delattr(os, "setxattr")
    monkeypatch.delattr(os, "getxattr")
    restored(store, path, 4)
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST]
    assert result.restored and result.pages_reused > 480


# -- damaged and lying page checksums --------------------------------------------------


def stored_sums(store: LTXStore) -> bytes:
    """The page checksums in the replica."""
    [file] = store.list_side("sums")
    return store.get_side(file)


def replace_sums(store: LTXStore, data: bytes) -> None:
    """Put others in their place."""
    [file] = store.list_side("sums")
    store.delete_side([file])
    store.put_side("sums", file.name, data)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "longer", "foreign"])
def test_damaged_page_checksums_are_ignored_and_named(
    recording: Recording,
    store: TroubledStore,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    """The restore is done in full."""
    good = stored_sums(store)
    half = len(good) // 2
    replace_sums(
        store,
        {
            "empty": b"",
            "cut": good[:half],
            "flipped": good[:half] + bytes([good[half] ^ 4]) + good[half + 1 :],
            "longer": good + b"\0",
            "foreign": b"<html>" * (len(good) // 6 + 1),
        }[damage],
    )
    copied(recording, path, 2)
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST]
    if damage != "longer":  # of which nobody sees more than there should be
        assert result.pages_reused == 0
        assert any("cannot be used" in why for why in reasons(caplog))


def test_page_checksums_that_lie_end_in_a_full_restore(
    recording: Recording,
    store: TroubledStore,
    path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Even if they are well made: what is fetched or kept by them does not fit."""
    [file] = store.list_level(9)
    header = ltx.Header.unpack(store.get(file, 0, ltx.HEADER_SIZE))
    sums = array("Q", map(ltx.page_checksum, range(1, 999), recording.pages(3)))
    sums[300] ^= 5
    sums[301] ^= 5
    replace_sums(store, ltx.encode_sums(header, sums))
    copied(recording, path, 2)
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST]
    assert result.pages_reused == 0
    assert "checksum mismatch" in reasons(caplog)[0]


def test_page_checksums_of_another_snapshot_are_ignored(
    recording: Recording, store: TroubledStore, path: Path
) -> None:
    """Left of a history that was deleted: the same number, another time."""
    [file] = store.list_level(9)
    data = bytearray(store.get(file))
    header = ltx.Header.unpack(data)
    changed = ltx.Header(
        page_size=header.page_size,
        commit=header.commit,
        min_txid=1,
        max_txid=3,
        timestamp=header.timestamp + 1,
        post_checksum=header.post_checksum,
    )
    _, pages = ltx.decode(bytes(data))
    overwrite(store, file, ltx.encode(changed, pages))
    copied(recording, path, 2)
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST] and result.pages_reused == 0
