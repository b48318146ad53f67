"""Files that are brought to disk behind their writer."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from sqlitereplica.store import Writeback, writeback


def test_large_file_is_synced_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the writer, in one other thread at a time, and once more at the end."""
    synced: list[str] = []
    monkeypatch.setattr(
        writeback,
        "_sync_data",
        lambda fd: synced.append(threading.current_thread().name),
    )
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append("end"))
    with (tmp_path / "file").open("wb", buffering=0) as file:
        behind = Writeback(file.fileno(), every=100)
        for _ in range(5):
            behind.wrote(60)
            behind.wait()
        behind.finish()
    assert synced == ["sqlitereplica-writeback"] * 2 + ["end"]


def test_small_file_is_synced_at_its_end_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread for what needs none."""
    monkeypatch.setattr(writeback, "_sync_data", None)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        behind = Writeback(file.fileno())
        behind.wrote(1000)
        behind.finish()


def test_failure_behind_the_writer_is_raised_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no fsync follows that would report success for what was given up."""

    def fail(fd: int) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(writeback, "_sync_data", fail)
    monkeypatch.setattr(os, "fsync", lambda fd: pytest.fail("fsynced again"))
    with (tmp_path / "file").open("wb", buffering=0) as file:
        behind = Writeback(file.fileno(), every=10)
        behind.wrote(10)
        with pytest.raises(OSError, match="input/output"):
            behind.finish()
