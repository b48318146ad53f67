"""What a configuration makes of each database, or folder of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlitereplica.config.expand import date_format, date_glob, expand_dates
from sqlitereplica.config.schema import DatabaseConfig
from sqlitereplica.errors import ConfigError
from sqlitereplica.group import ReplicatorGroup
from sqlitereplica.group.folder import Folder
from sqlitereplica.group.naming import Naming
from sqlitereplica.policy import Retention
from sqlitereplica.replicate import Mirror
from sqlitereplica.store import Replica
from sqlitereplica.store.dated import find_dated

__all__ = ["ANY_DAY", "DatabasePlan", "DatedReplica"]

ANY_DAY = datetime(2000, 1, 1, tzinfo=UTC)
"""For what is the same on all days."""


@dataclass(frozen=True, slots=True)
class DatedReplica:
    """A replica whose place has the date in it: another one each day, say.

    ``at`` makes the one of a time. What was the replica on earlier days is kept as long as
    ``retention`` says.
    """

    template: str
    make: Callable[[str], Replica]
    retention: Retention

    def at(self, now: datetime) -> Replica:
        """The replica of this time."""
        return self.make(expand_dates(self.template, now))

    def earlier(self, now: datetime) -> Iterator[Replica]:
        """The replicas of earlier times, the oldest first; raises StoreError."""
        current = self.at(now)
        options = current.storage_options
        glob, form = date_glob(self.template), date_format(self.template)
        for date, url in find_dated(glob, form, options):
            replica = self.make(url)
            is_other = replica.display_name != current.display_name
            if is_other and date < now.replace(tzinfo=None):
                yield replica


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabasePlan:
    """One database, or a folder of them, as it is to be replicated."""

    config: DatabaseConfig
    path: str
    """The database; of a folder, that."""
    replicas: tuple[Replica | Mirror | DatedReplica, ...]
    arguments: Mapping[str, Any]
    """Further arguments of ``Replicator``."""

    def replicas_at(self, now: datetime) -> tuple[Replica | Mirror, ...]:
        """The replicas of this time, as a ``Replicator`` takes them."""
        return tuple(
            r.at(now) if isinstance(r, DatedReplica) else r for r in self.replicas
        )

    def stores_at(self, now: datetime) -> tuple[Replica, ...]:
        """Those of them that a database can be restored from."""
        return tuple(r for r in self.replicas_at(now) if isinstance(r, Replica))

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of databases."""
        return self.config.dir is not None

    def group(self, **arguments: Any) -> ReplicatorGroup:
        """The group of a folder; each database's path below it is added to each replica.

        Raises:
            ConfigError, ValueError: it cannot be meant.
        """
        db = self.config
        if any(isinstance(replica, DatedReplica) for replica in self.replicas):
            raise ConfigError("a replica of a dir cannot have a date in its path")
        given = dict(self.arguments)
        # Parked ones are not restored and checked in the background: ``verify`` is for that.
        given.pop("verify_interval", None)
        return ReplicatorGroup(
            self.path,
            self.replicas_at(ANY_DAY),
            pattern=db.pattern or "*",
            recursive=db.recursive,
            watch=db.watch,
            meta_dir=self._meta_dir,
            **given,
            **arguments,
        )

    def below(self, path: str) -> DatabasePlan | None:
        """The plan of one database of a folder, there or not; None for other paths."""
        folder, real = os.path.realpath(self.path), os.path.abspath(path)
        rel = os.path.join(os.path.realpath(os.path.dirname(real)), "")
        rel = f"{rel}{os.path.basename(real)}".removeprefix(f"{folder}/")
        pattern, recursive = self.config.pattern or "*", self.config.recursive
        names = Folder(folder, pattern, recursive=recursive)
        if not self.is_folder or os.path.isabs(rel) or not names.has_name(rel):
            return None
        naming = Naming(folder, self.replicas_at(ANY_DAY), self._meta_dir)
        return DatabasePlan(
            config=DatabaseConfig(path=real),
            path=real,
            replicas=tuple(
                r for r in naming.replicas(rel) if isinstance(r, Replica | Mirror)
            ),
            arguments={**self.arguments, "meta_path": str(naming.meta_path(rel))},
        )

    @property
    def _meta_dir(self) -> str | None:
        found = self.config.meta_dir
        return found and os.path.abspath(os.path.expanduser(found))
