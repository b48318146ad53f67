"""The heartbeat: a URL that is asked as long as everything is replicated.

A monitoring service expects the request and raises the alarm when it stays away. As with
Litestream (section 9): at most one in an interval, and only if every database had a success
in each replica within it. Pure but for ``ping``.
"""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from http.client import HTTPException

from sqlitereplica.config import Config
from sqlitereplica.errors import ConfigError
from sqlitereplica.replicate import Status

__all__ = ["Heartbeat", "is_alive", "ping"]

logger = logging.getLogger("sqlitereplica.cli")

_DEFAULT = timedelta(minutes=5)
_LEAST = timedelta(minutes=1)
_TIMEOUT = 10.0


class Heartbeat:
    """When to ask. Belongs to one thread."""

    def __init__(
        self,
        url: str,
        interval: timedelta | None,
        *,
        ping: Callable[[str], None] | None = None,
        least: timedelta = _LEAST,
    ) -> None:
        """Raises ConfigError for a URL or an interval that cannot be meant."""
        if not url.startswith(("http://", "https://")):
            raise ConfigError("heartbeat-url must begin with http:// or https://")
        self._url, self._ping = url, ping or globals()["ping"]
        self._interval = (interval or _DEFAULT).total_seconds()
        if self._interval < least.total_seconds():
            raise ConfigError("heartbeat-interval must be a minute at least")
        self._last = -float("inf")

    @classmethod
    def of(cls, config: Config) -> Heartbeat | None:
        """That of a configuration, if it has one; raises ConfigError."""
        if not config.heartbeat_url:
            return None
        return cls(config.heartbeat_url, config.heartbeat_interval)

    def look(
        self,
        statuses: Iterable[Status],
        clock: float,
        now: float,
        *,
        groups: Sequence[Callable[[], object]] = (),
    ) -> bool:
        """Ask the URL if it is time and all is well; whether it was asked.

        ``clock`` is monotonic, ``now`` the time of day, both in seconds. ``groups`` tell
        whether those are well that have many databases.
        """
        if clock - self._last < self._interval:
            return False
        found = list(statuses)
        single = is_alive(found, now - self._interval) or (groups and not found)
        if not single or not all(is_well() for is_well in groups):
            return False
        self._last = clock
        try:
            self._ping(self._url)
        except (OSError, HTTPException, ValueError) as error:
            # The service misses it, which is what it is there for; here it is only told.
            logger.warning("the heartbeat URL does not answer: %s", error)
        return True


def is_alive(statuses: Iterable[Status], since: float) -> bool:
    """Whether every database is replicated, and each replica had a success since then.

    A replica that has all there is needs none: an idle database makes no request.
    """
    found = list(statuses)
    return bool(found) and all(
        status.state == "running"
        and bool(status.replicas)
        and all(
            replica.error is None
            and (
                (replica.state == "streaming" and not replica.lag_seconds)
                or (
                    replica.last_success is not None
                    and replica.last_success.timestamp() >= since
                )
            )
            for replica in status.replicas
        )
        for status in found
    )


def ping(url: str) -> None:
    """Ask a URL; raises OSError unless the answer is a good one."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
        answer.read(1024)
