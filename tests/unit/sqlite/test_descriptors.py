"""Descriptors that stay open: one a file, freed only when that harms nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sqlitereplica.sqlite import descriptors

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="counts through Linux's /proc"
)


def is_open(fd: int) -> bool:
    """True when the number is an open descriptor."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_one_descriptor_a_file_kept_after_release(tmp_path: Path) -> None:
    """A second use, and one after the end of the first, get the same descriptor."""
    path = tmp_path / "a"
    path.write_bytes(b"x")
    fd, key = descriptors.acquire(str(path))
    assert descriptors.acquire(str(path)) == (fd, key)
    descriptors.release(key)
    descriptors.release(key)
    assert is_open(fd)
    assert descriptors.acquire(str(path)) == (fd, key)
    descriptors.release(key)
    path.unlink()
    descriptors.sweep()
    assert not is_open(fd)


def test_file_replaced_under_its_name_gets_another_descriptor(tmp_path: Path) -> None:
    """The identity is the inode, not the path."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    fd, key = descriptors.acquire(str(path))
    (tmp_path / "b").write_bytes(b"new")
    os.replace(tmp_path / "b", path)
    fd2, key2 = descriptors.acquire(str(path))
    assert key2 != key
    assert os.pread(fd, 3, 0) == b"old"
    assert os.pread(fd2, 3, 0) == b"new"
    descriptors.release(key)
    descriptors.release(key2)


def test_thousands_of_files_do_not_use_up_descriptors(tmp_path: Path) -> None:
    """Idle ones are freed when many have gathered, but not one that others have open."""
    others = tmp_path / "others"
    others.write_bytes(b"x")
    with others.open("rb"):
        fd, key = descriptors.acquire(str(others))
        descriptors.release(key)
        for i in range(400):
            path = tmp_path / str(i)
            path.write_bytes(b"x")
            descriptors.release(descriptors.acquire(str(path))[1])
        assert len(os.listdir("/proc/self/fd")) < 300
        assert is_open(fd)
        assert descriptors.is_open_here(key)
    assert not descriptors.is_open_here(key)


def test_moved_file_is_let_go_unless_somebody_here_has_it_open(tmp_path: Path) -> None:
    """Nobody can come by its old name any more: then the descriptor is not kept."""
    path = tmp_path / "a"
    path.write_bytes(b"x")
    with path.open("rb") as other:
        fd, key = descriptors.acquire(str(path))
        path.rename(tmp_path / "b")
        descriptors.release_moved(key)
        assert is_open(fd), f"as {other.name} is open"
    assert descriptors.acquire(str(tmp_path / "b")) == (fd, key)
    descriptors.release_moved(key)
    assert not is_open(fd)
    assert not descriptors.is_open_here(key)
