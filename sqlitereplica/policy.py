"""What users say about how history is kept, as values."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Self

from sqlitereplica.durations import Duration, parse_duration

__all__ = ["Lease", "Retention"]

_DURATIONS = ("window", "fine", "grace")
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Which restore points of a replica stay, and for how long.

    A point stays if any of these rules asks for it. The newest state, the newest snapshot
    and whatever a point that stays is made of stay in any case.

    Durations are text (``"90s"``, ``"1h30m"``, ``"30d"``), timedeltas or seconds; periods
    are those of UTC.

    Example:
        >>> Retention(window="1d", fine="1d", daily=7, weekly=4, monthly=12).fine_ms
        86400000

    Raises:
        ValueError: A duration or a number makes no sense.
        TypeError: One is of another type.
    """

    window: Duration = "24h"
    """Every point that compaction leaves stays that long, and the one before."""
    fine: Duration = "5m"
    """Every single upload stays a point of its own that long; the window is no shorter."""
    keep_last: int = 0
    """At least so many snapshots."""
    hourly: int = 0
    """One point for each of the newest hours that have any; a snapshot if there is one."""
    daily: int = 0
    """So for days."""
    weekly: int = 0
    """So for weeks, which begin on Monday."""
    monthly: int = 0
    """So for months."""
    delete: bool = True
    """False: delete nothing. The bucket's lifecycle does, or nothing may (object lock)."""
    grace: Duration = "1h"
    """How long a file that no point needs any more stays for who may be reading it; level-0
    files, which are read within seconds, five minutes at most."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _DURATIONS:
                parse_duration(value, field.name)
            elif field.name == "delete":
                if not isinstance(value, bool):
                    raise TypeError(f"delete is True or False, not {value!r}")
            elif isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{field.name} is a number of points, not {value!r}")
            elif value < 0:
                raise ValueError(f"{field.name}={value} is negative: 0 keeps none")

    @classmethod
    def of(cls, value: Self | Duration | None) -> Self:
        """Return the policy that is meant; a duration is its window, None the default.

        Raises:
            ValueError: It is no duration.
            TypeError: It is of another type.
        """
        if isinstance(value, cls):
            return value
        return cls() if value is None else cls(window=value)  # type: ignore[arg-type]

    @property
    def window_ms(self) -> int:
        """The window in milliseconds; never shorter than ``fine``."""
        return max(_milliseconds(self.window), self.fine_ms)

    @property
    def fine_ms(self) -> int:
        """The time of single uploads in milliseconds."""
        return _milliseconds(self.fine)

    @property
    def grace_seconds(self) -> float:
        """The grace in seconds."""
        return parse_duration(self.grace).total_seconds()


def _milliseconds(duration: Duration) -> int:
    """Return a duration in milliseconds, rounded up: when in doubt things stay."""
    return -(-parse_duration(duration) // _MILLISECOND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """That one host at a time replicates, by an object in the first replica.

    Example:
        >>> Lease(ttl="10s").ttl_seconds
        10.0

    Raises:
        ValueError: A duration makes no sense.
        TypeError: One is of another type.
    """

    ttl: Duration = "30s"
    """How long after its last sign of life a holder is taken for dead. Every third of it
    the holder writes one small object; 0.5 s to one hour."""
    wait: Duration | None = "90s"
    """How long ``start`` waits for another holder to end; None for as long as it takes."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not 0.5 <= self.ttl_seconds <= 3600:
            raise ValueError(f"ttl must be 0.5 seconds to one hour: {self.ttl!r}")
        self.wait_seconds  # noqa: B018  (it may raise)

    @property
    def ttl_seconds(self) -> float:
        """``ttl`` in seconds."""
        return parse_duration(self.ttl, "ttl").total_seconds()

    @property
    def wait_seconds(self) -> float | None:
        """``wait`` in seconds."""
        if self.wait is None:
            return None
        return parse_duration(self.wait, "wait").total_seconds()

    @classmethod
    def of(cls, value: Self | Duration | bool | None) -> Self | None:
        """A value as users write it: True, a TTL, a ``Lease``; None and False are none."""
        if value is None or value is False:
            return None
        if value is True:
            return cls()
        return value if isinstance(value, cls) else cls(ttl=value)  # type: ignore[arg-type]
