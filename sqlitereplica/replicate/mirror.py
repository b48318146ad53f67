"""``Mirror``: a replica that is a plain SQLite file, as a value; and when one follows another.

A dated path (``backups/%Y-%m-%d.db``) names a file for each day, or hour, or whatever its
finest field is, in UTC. The file of the present is kept current; when the name changes it is
left as it is, the state at the end of its time, and the next one is begun.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlitereplica.durations import Duration, parse_duration
from sqlitereplica.sqlite import Connect

__all__ = ["Mirror", "dated_files", "outdated"]


@dataclass(frozen=True, slots=True)
class Mirror:
    """A plain SQLite file that a ``Replicator`` keeps current, as one of its replicas.

    Example:
        >>> Mirror("backups/daily/%Y-%m-%d.db", keep=7)
        Mirror('backups/daily/%Y-%m-%d.db')
    """

    path: str | os.PathLike[str]
    """The file. With fields of ``strftime`` in it there is one for each period, in UTC."""
    keep: int | Duration | None = None
    """With a dated path: how many files stay, the present one included, or for how long
    (``"30d"``); None for all."""
    overwrite: bool = False
    """Replace a database that is at the path, or a copy that somebody has written to."""
    name: str | None = None
    """What it is called in status and logs; by default its path."""
    connect: Connect | None = None
    """Opens the file; by default plainly, with the Replicator's copy of SQLite."""

    def __post_init__(self) -> None:
        """Refuse at once what cannot be meant."""
        if not os.fspath(self.path):
            raise ValueError("a Mirror needs the path of a file")
        _check_keep(self.keep)
        if self.is_dated:
            _check_pattern(self.pattern)
        elif self.keep is not None:
            raise ValueError("keep is for a dated path, such as 'backups/%Y-%m-%d.db'")

    def __repr__(self) -> str:
        return f"Mirror({self.display_name!r})"

    @property
    def display_name(self) -> str:
        """Its name, or its path."""
        return self.name if self.name is not None else os.fspath(self.path)

    @property
    def pattern(self) -> str:
        """The path, absolute."""
        return os.path.abspath(self.path)

    @property
    def is_dated(self) -> bool:
        """Whether its name depends on the time."""
        return "%" in os.fspath(self.path)

    def path_at(self, seconds: float) -> str:
        """The file of a time, in seconds since the epoch; links are followed."""
        if not self.is_dated:
            return os.path.realpath(self.pattern)
        at = datetime.fromtimestamp(seconds, UTC)
        return os.path.realpath(at.strftime(self.pattern))


def _check_keep(keep: int | Duration | None) -> None:
    if isinstance(keep, int):
        if isinstance(keep, bool) or keep < 1:
            raise ValueError(f"keep={keep!r}: at least the present file stays")
    elif keep is not None:
        parse_duration(keep, "keep")


def _check_pattern(pattern: str) -> None:
    """Raise ValueError for a path from which its time cannot be read again."""
    now = datetime.now(UTC)
    try:
        datetime.strptime(now.strftime(pattern), pattern).replace(tzinfo=UTC)
    except (ValueError, re.error) as error:
        raise ValueError(
            f"{pattern}: the time cannot be told from such a path; use each of %Y %m %d"
            f" %H %M once: {error}"
        ) from error


def dated_files(pattern: str) -> Iterator[tuple[datetime, str]]:
    """The files that a dated path names, each with the beginning of its time."""
    fixed = Path(pattern)
    while "%" in str(fixed):
        fixed = fixed.parent
    rest = os.path.relpath(pattern, fixed)
    for path in fixed.glob(re.sub(r"%.", "*", rest)):
        name = str(path)
        try:
            time = datetime.strptime(name, pattern).replace(tzinfo=UTC)
        except ValueError:
            continue  # not one of ours
        if time.strftime(pattern) == name and path.is_file():
            yield time, name


def outdated(
    files: Iterable[tuple[datetime, str]],
    keep: int | Duration | None,
    *,
    current: str,
    now: datetime,
) -> list[str]:
    """Which of the files may go: never the present one, nor one of a later time."""
    if keep is None:
        return []
    earlier = sorted(
        ((time, name) for time, name in files if time <= now), reverse=True
    )
    if isinstance(keep, int):
        going = [name for _, name in earlier[keep:]]
    else:
        # A file is as old as its end, which is the beginning of the one after it.
        ends = [now, *(time for time, _ in earlier)]
        age = parse_duration(keep, "keep")
        going = [
            name
            for (_, name), end in zip(earlier, ends, strict=False)
            if now - end > age
        ]
    return [name for name in going if os.path.realpath(name) != current]
