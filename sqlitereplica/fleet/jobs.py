"""``verify``, ``restore`` and compaction of many replicas."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeAlias, TypeVar

from sqlitereplica.errors import ConfigError, TargetExistsError
from sqlitereplica.fleet.compacting import CompactReport, compact_replica
from sqlitereplica.fleet.outcome import Outcome
from sqlitereplica.fleet.running import Job, run_jobs
from sqlitereplica.restore import RestoreResult, VerifyReport, restore, verify
from sqlitereplica.restore.at import NoTimeError, parse_at
from sqlitereplica.restore.report import Level
from sqlitereplica.store import Replica
from sqlitereplica.store.reach import to_datetime

__all__ = ["Into", "Replicas", "compact_all", "restore_all", "verify_all"]

T = TypeVar("T")

Replicas: TypeAlias = Iterable[Replica | str | os.PathLike[str]]
"""What ``find_replicas`` gives, or a list of one's own; may be very long."""
Into: TypeAlias = str | Callable[[Replica], str | os.PathLike[str]]
"""Where each replica is restored to: a template with ``{name}``, or a function."""

_THREADS = 8
_WINDOW = 1000
_OF_ONE = frozenset(
    {"callback", "observer", "pace", "path", "replica", "stop", "storage_options"}
)


def verify_all(
    replicas: Replicas,
    level: Level = "checksums",
    *,
    executor: Executor | None = None,
    threads: int = _THREADS,
    window: int = _WINDOW,
    **options: Any,
) -> Iterator[Outcome[VerifyReport]]:
    """Verify many replicas; yields what was found as each ends.

    Args:
        replicas: Such as ``find_replicas("s3://bucket/prefix")``.
        level: As of ``verify``.
        executor: Where the work is done; by default in threads of this process.
        threads: How many these are.
        window: How many jobs the executor is given at a time: more than it has workers.
        options: Further arguments of ``verify``, the same for all.

    Raises:
        TypeError, ValueError: An argument makes no sense.
        StoreError: The iteration raises it, after all results there are, when ``replicas``
            does.
    """
    options = _checked(verify, {"level": level, **options})
    jobs = (Job(verify, replica, options) for replica in _each(replicas))
    return _run(jobs, executor, threads, window)


def restore_all(
    replicas: Replicas,
    into: Into,
    *,
    executor: Executor | None = None,
    threads: int = _THREADS,
    window: int = _WINDOW,
    **options: Any,
) -> Iterator[Outcome[RestoreResult]]:
    """Restore many replicas, each to a path of its own; yields each as it ends.

    Args:
        replicas: Such as ``find_replicas("s3://bucket/prefix")``.
        into: The path of each, where the work is done. A template such as
            ``"restored/{name}.db"``: ``{name}`` is the last part of the replica's URL,
            ``{path}`` its ``Replica.path``, which of replicas found below a URL is what
            follows that. Or a function of the replica. No two may have the same.
        executor: As of ``verify_all``.
        threads: So, too.
        window: So, too.
        options: Further arguments of ``restore``, the same for all. ``at="5 minutes ago"``
            is one time for all: 5 minutes before this call.

    Raises as ``verify_all``. A replica whose path is taken by another's, or would leave the
    folder of the template, gets an error.
    """
    if isinstance(options.get("at"), str):
        options["at"] = _time_now(options["at"])
    options = _checked(restore, options)
    target = _Targets(into)
    jobs = (target.job(replica, options) for replica in _each(replicas))
    return _run(jobs, executor, threads, window)


def compact_all(
    replicas: Replicas,
    *,
    executor: Executor | None = None,
    threads: int = _THREADS,
    window: int = _WINDOW,
    **options: Any,
) -> Iterator[Outcome[CompactReport]]:
    """Compact many replicas without their databases; yields each as it ends.

    Args:
        replicas: Such as ``find_replicas("s3://bucket/prefix")``.
        executor: As of ``verify_all``.
        threads: So, too.
        window: So, too.
        options: Further arguments of ``compact_replica``, the same for all.

    Raises as ``verify_all``.
    """
    options = _checked(compact_replica, options)
    jobs = (Job(compact_replica, replica, options) for replica in _each(replicas))
    return _run(jobs, executor, threads, window)


def _run(
    jobs: Iterable[Job[T] | Outcome[T]],
    executor: Executor | None,
    threads: int,
    window: int,
) -> Iterator[Outcome[T]]:
    for name, value in (("threads", threads), ("window", window)):
        if value < 1:
            raise ValueError(f"{name}={value!r} is not a number from 1 on")
    return run_jobs(jobs, executor, threads=threads, window=window)


def _each(replicas: Replicas) -> Iterator[Replica]:
    given: object = replicas
    if isinstance(given, str | os.PathLike | Replica):
        raise TypeError(f"{given!r} is one place: pass find_replicas(...) or a list")
    return (r if isinstance(r, Replica) else Replica(r) for r in replicas)


def _checked(
    function: Callable[..., object], options: dict[str, Any]
) -> dict[str, Any]:
    """The options, if the function takes them and they mean something elsewhere."""
    if found := sorted(_OF_ONE.intersection(options)):
        raise TypeError(f"{', '.join(found)}: not for many replicas")
    inspect.signature(function).bind_partial(**options)
    return options


def _time_now(at: str) -> datetime | str:
    """A time that is the same whenever a job begins; a pin's name as it is."""
    try:
        return to_datetime(parse_at(at, datetime.now(UTC)))
    except NoTimeError:
        return at


class _Targets:
    """Where each replica is restored to, each path once."""

    def __init__(self, into: Into) -> None:
        self._path_of = partial(_filled, into) if isinstance(into, str) else into
        if isinstance(into, str):
            _filled(into, Replica("name"))
        self._taken: set[str] = set()

    def job(
        self, replica: Replica, options: dict[str, Any]
    ) -> Job[RestoreResult] | Outcome[RestoreResult]:
        """The job, or the error that there is before it."""
        try:
            path = os.fspath(self._path_of(replica))
            self._take(os.path.abspath(path))
        except Exception as error:  # noqa: BLE001
            return Outcome(replica=replica, result=None, error=error, seconds=0.0)
        return Job(restore, replica, options, (path,))

    def _take(self, path: str) -> None:
        if path in self._taken:
            raise TargetExistsError(
                path, f"{path} is where another of these replicas is restored to"
            )
        self._taken.add(path)


def _filled(template: str, replica: Replica) -> str:
    name = replica.display_name.rstrip("/").rpartition("/")[2]
    path = (replica.path or name).strip("/")
    for part in path.split("/"):
        if part in {"", ".", ".."} or "\0" in part:
            raise ConfigError(
                f"{replica.display_name} cannot be part of a path: pass a function as into",
                kind="target",
            )
    try:
        return template.format(name=name, path=path)
    except (LookupError, AttributeError) as error:
        raise ValueError(
            f"into={template!r} can have {{name}} and {{path}}: {error}"
        ) from error
