"""Replicas in memory, of which one fails as planned."""

from __future__ import annotations

from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from sqlitereplica.store import LTXStore, Replica
from sqlitereplica.testing.faults import Plan
from sqlitereplica.testing.filesystem import FaultyFileSystem
from sqlitereplica.testing.ltxfile import LTXFile

__all__ = ["FaultyStore", "MemoryStore"]

_FOLDER = "/replica"


class MemoryStore:
    """A replica in the memory of this process that nobody else sees.

    ``replica`` is what to pass to a ``Replicator``, to ``restore`` and the like. It lives
    as long as this object.

    Example:
        >>> store = MemoryStore()
        >>> store.replica, store.files()
        (Replica('memory'), [])
    """

    def __init__(self, *, name: str = "memory") -> None:
        """Make an empty one; ``name`` is what it is called in status and errors."""
        self._memory = MemoryFileSystem(global_store=False, skip_instance_cache=True)
        self.replica = Replica(self._filesystem(), path=_FOLDER, name=name)

    def _filesystem(self) -> AbstractFileSystem:
        return self._memory

    def files(self, level: int | None = None) -> list[LTXFile]:
        """What is in it, verified; by level and TXID. Of one level, or of all.

        Raises:
            InvalidFileError: one of them is damaged.
        """
        store = LTXStore.open(self._memory, path=_FOLDER)
        found = store.list_all() if level is None else store.list_level(level)
        return [
            LTXFile.read(info.name, store.get(info), level=info.level) for info in found
        ]

    def put(self, file: LTXFile) -> None:
        """Add a file, as some other writer would.

        Raises:
            AnotherWriterError: it holds other bytes under that name.
        """
        store = LTXStore.open(self._memory, path=_FOLDER)
        txids = (file.min_txid, file.max_txid)
        store.put(file.level, *txids, file.data, timestamp=file.timestamp)

    def clear(self) -> None:
        """Lose everything in it."""
        self._memory.store.clear()
        self._memory.pseudo_dirs[:] = [""]


class FaultyStore(MemoryStore):
    """A replica in memory that fails and lies as planned.

    ``files``, ``put`` and ``clear`` go behind the faults.

    Example:
        >>> from sqlitereplica.testing import only
        >>> store = FaultyStore()
        >>> store.plan = only("write", times=2)
        >>> store.heal()
    """

    def __init__(self, *, name: str = "faulty") -> None:
        """Make an empty one in which nothing fails yet."""
        super().__init__(name=name)

    def _filesystem(self) -> AbstractFileSystem:
        self.filesystem = FaultyFileSystem(self._memory)
        return self.filesystem

    @property
    def plan(self) -> Plan | None:
        """What goes wrong from now on; None for nothing."""
        return self.filesystem.plan

    @plan.setter
    def plan(self, plan: Plan | None) -> None:
        self.filesystem.plan = plan

    def heal(self) -> None:
        """Let everything succeed from now on."""
        self.filesystem.heal()
