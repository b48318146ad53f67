"""The contract of stores, on the filesystems that need no server."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from sqlitereplica.store import LTXStore
from sqlitereplica.testing import FaultyFileSystem, LTXStoreTests


class TestLocalStore(LTXStoreTests):
    """A folder."""

    lists_header_time = True

    @pytest.fixture
    def store(self, tmp_path: Path) -> LTXStore:
        """A store in a folder that does not exist yet."""
        return LTXStore.open(tmp_path / "some" / "replica")


class TestMemoryStore(LTXStoreTests):
    """fsspec's memory."""

    @pytest.fixture
    def store(self) -> LTXStore:
        """A store under a name of its own: the memory is shared by all."""
        return LTXStore.open(f"memory://{secrets.token_hex(8)}/replica")


class TestMemoryRootStore(LTXStoreTests):
    """The root of a filesystem, with no path at all."""

    @pytest.fixture
    def store(self) -> LTXStore:
        """A store at the top of a memory of its own."""
        memory = MemoryFileSystem(global_store=False, skip_instance_cache=True)
        return LTXStore.open(memory, path="/")


class TestWrappedLocalStore(LTXStoreTests):
    """A folder through fsspec, as some unknown remote filesystem."""

    one_winner = False

    @pytest.fixture
    def store(self, tmp_path: Path) -> LTXStore:
        """A store on a wrapper that passes everything on."""
        return LTXStore.open(
            FaultyFileSystem(LocalFileSystem()), path=str(tmp_path / "replica")
        )


class TestFolderLikeStore(LTXStoreTests):
    """Folders of another machine, where files are written beside and renamed."""

    one_winner = False

    @pytest.fixture
    def store(self, tmp_path: Path) -> LTXStore:
        """A store on a wrapper that claims to be SFTP."""
        fs = FaultyFileSystem(LocalFileSystem(), protocol="sftp")
        return LTXStore.open(fs, path=str(tmp_path / "replica"))


class TestObjectLikeStore(LTXStoreTests):
    """Something that refuses taken names and has the layout of S3."""

    @pytest.fixture
    def store(self) -> LTXStore:
        """A store on a wrapper that claims to be S3."""
        memory = MemoryFileSystem(global_store=False, skip_instance_cache=True)
        fs = FaultyFileSystem(memory, protocol="s3")
        return LTXStore.open(fs, path="bucket/replica")


class TestDirectoryStore(LTXStoreTests):
    """fsspec's view of a folder of another filesystem, which names files anew."""

    one_winner = False

    @pytest.fixture
    def store(self, tmp_path: Path) -> LTXStore:
        """A store in a folder that is the root of its filesystem."""
        return LTXStore.open(DirFileSystem(str(tmp_path)), path="replica")
