"""The databases that a Datasette has attached, as Replicators."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

from datasette.utils.sqlite import sqlite3

from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.integrations.configured import limits_from, replicator_from
from sqlitereplica.integrations.named import Replicators

__all__ = ["Attached"]

NAME = "sqlitereplica"
"""Of the plugin, where it is configured."""

logger = logging.getLogger("sqlitereplica")


class Attached:
    """Replicates each database that is attached, mutable, in a file and configured."""

    def __init__(self, datasette: Any) -> None:
        self._datasette = datasette
        self.replicators = Replicators()
        self.failed: dict[str, str] = {}
        """Why databases that were attached later are not replicated."""
        self._seen: Any = None
        self._lock = asyncio.Lock()
        self._serving = False

    def start(self) -> None:
        """Replicate what is attached; raises as ``Replicator.start``, and ValueError."""
        self._seen = self._datasette.databases
        self._serving = True
        for name, path in self._wanted().items():
            self._add(name, path)

    def stop(self) -> None:
        """Flush and stop; raises as ``Replicator.stop``."""
        self._serving = False
        self.replicators.stop()

    async def follow(self) -> None:
        """Notice what was attached and detached. Costs nothing when nothing was.

        Datasette makes a new dictionary of its databases with each change.
        """
        if not self._serving or self._datasette.databases is self._seen:
            return
        async with self._lock:
            self._seen = self._datasette.databases
            wanted = self._wanted()
            for name in [n for n in self.replicators if n not in wanted]:
                await self._try(name, self.replicators.remove, name)
            for name in [n for n in wanted if n not in self.replicators]:
                await self._try(name, self._add, name, wanted[name])

    async def _try(self, name: str, do: Callable[..., None], *args: str) -> None:
        """Do it; a request is not to fail because of some database, but it shows."""
        self.failed.pop(name, None)
        try:
            await asyncio.to_thread(do, *args)
        except (SQLiteReplicaError, ValueError, OSError) as error:
            logger.error("%s: %s", name, error)
            self.failed[name] = str(error)

    def _add(self, name: str, path: str) -> None:
        configuration = self._configuration(name)
        replicator = replicator_from(name, path, configuration, connect=sqlite3.connect)
        self.replicators.add(name, replicator, limits_from(configuration))

    def _wanted(self) -> dict[str, str]:
        """Names and paths of the databases to replicate, each file once."""
        files: dict[str, str] = {}
        for name, database in self._datasette.databases.items():
            in_file = database.path and not database.is_memory
            wanted = self._configuration(name).get("replicas")
            if in_file and database.is_mutable and wanted:
                files.setdefault(os.path.realpath(database.path), name)
        return {name: path for path, name in files.items()}

    def _configuration(self, name: str) -> dict[str, Any]:
        found = self._datasette.plugin_config(NAME, database=name) or {}
        return {key: value for key, value in found.items() if key != "allow"}

    def report(self) -> dict[str, Any]:
        """How all are, for JSON."""
        report = self.replicators.report()
        return {
            **report,
            "ok": report["ok"] and not self.failed,
            "failed": dict(self.failed),
        }
