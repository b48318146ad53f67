"""The folders of databases of a daemon: a group for each. Thread-safe."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sqlitereplica.cli.units import stop_together
from sqlitereplica.config import DatabasePlan
from sqlitereplica.config.plan import ANY_DAY
from sqlitereplica.errors import (
    DatabaseStateError,
    ReplicatorClosedError,
)
from sqlitereplica.group import ReplicatorGroup

__all__ = ["Folders"]

logger = logging.getLogger("sqlitereplica.cli")

Watch = Callable[[str], Mapping[str, Any]]
"""Further arguments for the group of a folder."""


class Folders:
    """The groups of a configuration, by the folders that it names."""

    def __init__(
        self, plans: Iterable[DatabasePlan] = (), further: Watch = lambda path: {}
    ) -> None:
        self._plans = {plan.path: plan for plan in plans if plan.is_folder}
        self._groups = {
            path: plan.group(**further(path)) for path, plan in self._plans.items()
        }

    def __iter__(self) -> Iterator[ReplicatorGroup]:
        return iter(self._groups.values())

    def __len__(self) -> int:
        return len(self._groups)

    def start(self, group: ReplicatorGroup) -> None:
        """Start one.

        Raises:
            DatabaseStateError: it has no databases, and none would be noticed later.
            SQLiteReplicaError: as ``ReplicatorGroup.start``.
        """
        group.start()
        plan = next(p for p in self._plans.values() if self._groups[p.path] is group)
        pattern = plan.config.pattern
        if not len(group) and not plan.config.watch:
            group.stop()
            raise DatabaseStateError(
                f"{group.dir} has no file that matches {pattern}; with 'watch: true' those"
                " are waited for that come later",
                path=group.dir,
                kind="folder",
            )
        names = ", ".join(r.display_name for r in plan.stores_at(ANY_DAY))
        logger.info(
            "replicating %d databases (%s) of %s to %s",
            len(group),
            pattern,
            group.dir,
            names,
        )

    def one_pass(
        self, group: ReplicatorGroup, *, snapshot: bool, retention: bool
    ) -> None:
        """Make all databases of one durable; raises as ``ReplicatorGroup.sync``."""
        self.start(group)
        try:
            group.sync(timeout=None)
            for path in group.databases if snapshot or retention else ():
                with group.replicator(path, timeout=None) as replicator:
                    if snapshot:
                        replicator.snapshot()
                    if retention:
                        replicator.enforce_retention()
        finally:
            group.stop()

    def stop_all(self) -> list[Exception]:
        """Stop all at once; returns and logs what went wrong."""
        return stop_together((group.dir, group.stop) for group in self)

    # -- what the control socket asks ------------------------------------------------

    def find(self, path: str) -> ReplicatorGroup | None:
        """The group that has this database, or is of this folder."""
        path = os.path.abspath(os.path.expanduser(path))
        if path in self._groups:
            return self._groups[path]
        known = ("unknown", "removed")
        for group in self:
            if group.status_of(path).state not in known:
                return group
        return None

    def is_folder(self, path: str) -> bool:
        """Whether it is a folder of the configuration itself."""
        return os.path.abspath(os.path.expanduser(path)) in self._groups

    def listed(self) -> list[dict[str, Any]]:
        """Every database of all of them, as Litestream's ``/list`` has it."""
        return [
            {"path": path, "status": _word_for(group.status_of(path).state)}
            for group in self
            for path in group.databases
        ]

    def txid(self, group: ReplicatorGroup, path: str, timeout: float) -> int:
        """The newest transaction in any replica of a database.

        A parked one is started for the answer: nothing is known of it in memory. Raises as
        ``ReplicatorGroup.replicator``.
        """
        try:
            with group.replicator(path, timeout) as replicator:
                replicator.sync(timeout)
                return replicator.status().txid
        except ReplicatorClosedError:
            return 0


def _word_for(state: str) -> str:
    """Litestream's word for a state."""
    if state in ("running", "parked", "parking", "starting"):
        return "replicating"
    return "stopped" if state == "failed" else "open"
