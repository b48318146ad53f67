"""What a replica can restore, as values: for people, notebooks and programs.

Everything shown follows from one listing, by ``store/reach.py``. Times are those that
``restore(at=...)`` goes by, which are in the files: reading them takes a small request
for each. Where many files make that slow, ``accurate=False`` takes the times that the
listing tells; on S3 these are of the uploads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, overload

from sqlitereplica.errors import InvalidFileError, NotRestorableError, StoreError
from sqlitereplica.ltx import HEADER_SIZE, FileInfo, Header
from sqlitereplica.restore.assemble import Wanted, unknown_pin
from sqlitereplica.restore.at import At
from sqlitereplica.restore.choose import Source, open_store
from sqlitereplica.store import LTXStore, Pin
from sqlitereplica.store.pins import DamagedPin, read_pins
from sqlitereplica.store.reach import (
    Gap,
    Reached,
    find_gaps,
    no_such_txid,
    reach,
    to_datetime,
)

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

__all__ = ["RestorePoint", "RestorePoints", "restore_points"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePoint:
    """A state that can be restored.

    Attributes:
        txid: Its last transaction: ``restore(txid=...)`` gives exactly this state.
        min_txid: The first transaction that the point before lacks. States between the
            two were merged and cannot be told apart any more.
        time: A restore ``at`` any later time gives this state or a newer one, at this
            time or an earlier one an older state. Aware, UTC.
        level: The level of the file that a restore of it ends with; 9 is a snapshot.
        bytes_to_fetch: What a restore of it downloads.
        files: How many files these bytes are in.
        pins: The names of its pins.
    """

    txid: int
    min_txid: int
    time: datetime
    level: int
    bytes_to_fetch: int
    files: int
    pins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RestorePoints(Sequence[RestorePoint]):
    """What one replica could restore when it was listed: a sequence, the oldest first.

    Attributes:
        replica: Its name, a URL without secrets.
        points: The points as a tuple.
        gaps: Transactions that cannot be restored because files are missing. (History
            that is only coarser than it was is no gap.)
        pins: All pins that can be read.
        damaged_pins: The names of those that cannot: while there are any, retention
            deletes nothing.
        total_files: Files in the replica.
        total_bytes: Their bytes.
        database_size: Bytes of the newest state as a database; None if that cannot be
            told.
    """

    replica: str
    points: tuple[RestorePoint, ...]
    gaps: tuple[Gap, ...]
    pins: tuple[Pin, ...]
    damaged_pins: tuple[str, ...]
    total_files: int
    total_bytes: int
    database_size: int | None
    _files: tuple[FileInfo, ...] = field(compare=False)

    # -- a sequence ------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.points)

    @overload
    def __getitem__(self, index: int) -> RestorePoint: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[RestorePoint, ...]: ...

    def __getitem__(
        self, index: int | slice
    ) -> RestorePoint | tuple[RestorePoint, ...]:
        return self.points[index]

    # -- the whole -------------------------------------------------------------------

    @property
    def earliest(self) -> RestorePoint | None:
        """The oldest point; None if there is none."""
        return self.points[0] if self.points else None

    @property
    def latest(self) -> RestorePoint | None:
        """The newest point; None if there is none."""
        return self.points[-1] if self.points else None

    @property
    def window(self) -> timedelta:
        """How far the points reach back from the newest one."""
        if not self.points:
            return timedelta(0)
        return self.points[-1].time - self.points[0].time

    @property
    def lost_pins(self) -> tuple[Pin, ...]:
        """Pins of states that cannot be restored: their files are missing."""
        return tuple(pin for pin in self.pins if not self._has(pin.txid))

    # -- looking up ------------------------------------------------------------------

    def find(self, txid: int) -> RestorePoint:
        """The point of exactly this transaction.

        Raises:
            NotRestorableError: There is none; ``before`` and ``after`` are the nearest.
        """
        if not self._has(txid):
            raise no_such_txid(self._files, txid)
        return self.points[self._index(txid)]

    def at(self, at: At) -> RestorePoint:
        """The point that ``restore(at=at)`` gives; ``at`` as there.

        Raises:
            NotRestorableError: None, for the reason that ``restore`` would give.
            ValueError: ``at`` is no time.
        """
        wanted = Wanted.at(at, datetime.now(UTC))
        if wanted.pin is not None:
            return self._pinned(wanted.pin)
        before = wanted.before
        assert before is not None, "a time or a pin"
        index = self._first_from(before)
        if index in (0, len(self.points)):
            # Too early; or later than all, where a gap may come before the newest file.
            return self.find(wanted.plan(self._files)[-1].max_txid)
        return self.points[index - 1]

    def nearest(self, at: At | None = None, *, txid: int | None = None) -> RestorePoint:
        """The point nearest to a time or to a transaction, before or after it.

        Of two that are equally near it is the earlier one.

        Raises:
            NotRestorableError: There is no point, or no such pin.
            ValueError: ``at`` is no time, or not exactly one of the two is given.
        """
        if (at is None) == (txid is None):
            raise ValueError("give at or txid")
        if not self.points:
            raise NotRestorableError("there is no restore point", kind="empty")
        if txid is not None:
            wanted_txid = txid
            index = self._index(txid)
            around = self.points[max(0, index - 1) : index + 1]
            return min(around, key=lambda point: abs(point.txid - wanted_txid))
        assert at is not None, "checked above"
        wanted = Wanted.at(at, datetime.now(UTC))
        if wanted.pin is not None:
            return self._pinned(wanted.pin)
        assert wanted.before is not None, "a time or a pin"
        moment = to_datetime(wanted.before)
        index = self._first_from(wanted.before)
        around = self.points[max(0, index - 1) : index + 1]
        return min(around, key=lambda point: abs(point.time - moment))

    def _index(self, txid: int) -> int:
        return bisect_left(self.points, txid, key=lambda point: point.txid)

    def _has(self, txid: int) -> bool:
        index = self._index(txid)
        return index < len(self.points) and self.points[index].txid == txid

    def _first_from(self, before: int) -> int:
        """The index of the first point that is not before a time."""
        moment = to_datetime(before)
        return bisect_left(self.points, moment, key=lambda point: point.time)

    def _pinned(self, name: str) -> RestorePoint:
        for pin in self.pins:
            if pin.name == name:
                return self.find(pin.txid)
        raise unknown_pin(name, [*(pin.name for pin in self.pins), *self.damaged_pins])

    # -- other forms -----------------------------------------------------------------

    def __repr__(self) -> str:
        from sqlitereplica.restore.describe import describe_text

        return describe_text(self)

    def _repr_html_(self) -> str:
        """For notebooks: a summary with a drawing of the points over time."""
        from sqlitereplica.restore.describe import describe_html

        return describe_html(self)

    def to_json(self) -> bytes:
        """All of it as one JSON object; times in RFC 3339."""
        import msgspec

        return msgspec.json.encode(
            {
                "replica": self.replica,
                "window_seconds": self.window.total_seconds(),
                "database_size": self.database_size,
                "total_files": self.total_files,
                "total_bytes": self.total_bytes,
                "gaps": [gap._asdict() for gap in self.gaps],
                "pins": self.pins,
                "lost_pins": [pin.name for pin in self.lost_pins],
                "damaged_pins": self.damaged_pins,
                "points": self.points,
            }
        )

    def to_pandas(self) -> pandas.DataFrame:
        """The points as a pandas DataFrame, a row each; ``time`` is in UTC.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas() needs pandas: pip install pandas") from error
        columns = RestorePoint.__slots__
        rows = {name: [getattr(p, name) for p in self.points] for name in columns}
        frame = pandas.DataFrame(rows, columns=list(columns))
        # Milliseconds: they hold every year that a datetime has.
        return frame.astype({"time": "datetime64[ms, UTC]"})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot how much changed when, with matplotlib: bytes and transactions by time.

        Bytes are those of files of changes, not of snapshots. What was merged counts at
        the time of its last transaction.

        Args:
            ax: Where to draw; a new figure by default.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from sqlitereplica.restore.activity import plot_activity

        return plot_activity(self, self._files, ax)


def restore_points(
    replica: Source,
    *,
    accurate: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> RestorePoints:
    """List what one replica can restore.

    Args:
        replica: A URL, a folder, a ``Replica`` or an ``LTXStore``.
        accurate: Read the times in the files, which ``restore(at=...)`` goes by: one
            small request for each file. Without, times are those of the listing, which
            tells them rightly in a folder that was not copied, and the times of uploads
            on S3.
        storage_options: For the filesystem of a URL.

    Returns:
        The points; none if there is no backup.

    Raises:
        StoreError: The replica cannot be read.
        ValueError: An argument makes no sense.
    """
    store = open_store(replica, storage_options)
    pins = read_pins(store)  # first: what they keep is then in the listing
    files = store.list_all(accurate=accurate)
    reached = reach(files)
    size = _database_size(store, reached[-1].last) if reached else None
    return points_of(store.label, files, reached, pins, database_size=size)


def points_of(
    replica: str,
    files: Sequence[FileInfo],
    reached: Sequence[Reached],
    pins: Sequence[Pin | DamagedPin],
    *,
    database_size: int | None,
) -> RestorePoints:
    """Put together what a listing says; ``reached`` is what ``reach`` says of it."""
    sound = tuple(pin for pin in pins if isinstance(pin, Pin))
    damaged = tuple(pin.name for pin in pins if isinstance(pin, DamagedPin))
    return RestorePoints(
        replica=replica,
        points=_points(reached, sound),
        gaps=tuple(find_gaps(files, [state.txid for state in reached])),
        pins=sound,
        damaged_pins=damaged,
        total_files=len(files),
        total_bytes=sum(file.size for file in files),
        database_size=database_size,
        _files=tuple(files),
    )


def _points(
    reached: Sequence[Reached], pins: Sequence[Pin]
) -> tuple[RestorePoint, ...]:
    names = defaultdict(list)
    for pin in pins:
        names[pin.txid].append(pin.name)
    points, before = [], 0
    for state in reached:
        points.append(
            RestorePoint(
                txid=state.txid,
                min_txid=before + 1,
                time=to_datetime(state.time),
                level=state.last.level,
                bytes_to_fetch=state.size,
                files=state.files,
                pins=tuple(names.get(state.txid, ())),
            )
        )
        before = state.txid
    return tuple(points)


def _database_size(store: LTXStore, last: FileInfo) -> int | None:
    """Bytes of the database that a file leads to; None if it is damaged or gone."""
    try:
        header = Header.unpack(store.get(last, 0, HEADER_SIZE))
    except InvalidFileError:
        return None
    except StoreError as error:
        if error.kind != "missing":
            raise
        return None
    return header.commit * header.page_size
