"""The control socket: Litestream's routes (litestream.md section 8)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from sqlitereplica.cli.folders import Folders
from sqlitereplica.cli.serving import Reply, Routes
from sqlitereplica.cli.units import Unit, Units
from sqlitereplica.config import Config, DatabaseConfig, build
from sqlitereplica.config.schema import ReplicaConfig
from sqlitereplica.errors import (
    ConfigError,
    DatabaseStateError,
    SQLiteReplicaError,
    SyncTimeoutError,
)
from sqlitereplica.group import ReplicatorGroup

__all__ = ["Control"]

_TIMEOUT = 30.0
_Body = Mapping[str, Any]


class Control:
    """Answers requests about the databases of a daemon. Thread-safe."""

    def __init__(
        self,
        units: Units,
        config: Config,
        folders: Folders | None = None,
        *,
        env: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``config`` is what a database that is registered inherits from."""
        self._units, self._config, self._env, self._clock = units, config, env, clock
        self._folders = Folders() if folders is None else folders
        self._started = clock()

    def routes(self) -> Routes:
        """What is served."""
        return {
            ("POST", "/start"): self._start,
            ("POST", "/stop"): self._stop,
            ("POST", "/sync"): self._sync,
            ("POST", "/register"): self._register,
            ("POST", "/unregister"): self._unregister,
            ("GET", "/txid"): self._txid,
            ("GET", "/list"): self._list,
            ("GET", "/info"): self._info,
            ("GET", "/debug/sync-status"): self._statuses,
        }

    # -- one database ----------------------------------------------------------------

    def _unit(self, path: object) -> Unit | Reply:
        if not isinstance(path, str) or not path:
            return _error(400, "path is required")
        found = self._units.find(path)
        if found is None and self._folders.find(path) is not None:
            return _error(
                409,
                f"{path} is of a dir of the configuration: its group starts and stops it",
            )
        return found or _error(404, f"database not found: {path}")

    def _start(self, _: Mapping[str, str], body: _Body) -> Reply:
        unit = self._unit(body.get("path"))
        if isinstance(unit, Reply):
            return unit
        try:
            begun = unit.start()
        except SQLiteReplicaError as error:
            return _error(500, str(error))
        return _about(unit, "started" if begun else "already_running")

    def _stop(self, _: Mapping[str, str], body: _Body) -> Reply:
        unit = self._unit(body.get("path"))
        if isinstance(unit, Reply):
            return unit
        txid = _txid_of(unit)
        try:
            ended = unit.stop(_timeout(body))
        except SQLiteReplicaError as error:
            return _error(500, str(error))
        return _about(unit, "stopped" if ended else "already_stopped", txid)

    def _sync(self, _: Mapping[str, str], body: _Body) -> Reply:
        path = body.get("path")
        group = self._folders.find(path) if isinstance(path, str) and path else None
        if group is not None and isinstance(path, str):
            return self._sync_in(group, path, body)
        unit = self._unit(body.get("path"))
        if isinstance(unit, Reply):
            return unit
        replicator = unit.replicator
        if replicator is None:
            return _error(409, f"database is stopped: {unit.plan.path}")
        before = replicator.status()
        try:
            if body.get("wait"):
                replicator.sync(_timeout(body))
            else:
                replicator.position()
        except SyncTimeoutError as error:
            return _error(504, str(error))
        except SQLiteReplicaError as error:
            return _error(500, str(error))
        after = replicator.status()
        done = min((r.txid for r in after.replicas), default=0)
        status = "synced" if body.get("wait") else "synced_local"
        if after.txid == before.txid and not after.pending_pages:
            status = "no_change"
        answer = {"status": status, "path": unit.plan.path, "txid": after.txid}
        return Reply({**answer, "replicated_txid": done})

    def _sync_in(self, group: ReplicatorGroup, path: str, body: _Body) -> Reply:
        """Of a folder, or of one database in it; it is waited for in any case."""
        timeout = _timeout(body)
        try:
            if self._folders.is_folder(path):
                group.sync(timeout=timeout)
                return Reply({"status": "synced", "path": path})
            group.sync(path, timeout)
            txid = self._folders.txid(group, path, timeout)
        except SyncTimeoutError as error:
            return _error(504, str(error))
        except (SQLiteReplicaError, OSError) as error:
            return _error(500, str(error))
        answer = {"status": "synced", "path": path, "txid": txid}
        return Reply({**answer, "replicated_txid": txid})

    def _txid(self, query: Mapping[str, str], _: _Body) -> Reply:
        path = query.get("path", "")
        group = self._folders.find(path) if path else None
        if group is not None and not self._folders.is_folder(path):
            try:
                return Reply({"txid": self._folders.txid(group, path, _TIMEOUT)})
            except (SQLiteReplicaError, OSError) as error:
                return _error(500, str(error))
        unit = self._unit(path)
        return unit if isinstance(unit, Reply) else Reply({"txid": _txid_of(unit)})

    # -- which databases -------------------------------------------------------------

    def _register(self, _: Mapping[str, str], body: _Body) -> Reply:
        path, url = body.get("path"), body.get("replica_url")
        if not isinstance(path, str) or not isinstance(url, str) or not path or not url:
            return _error(400, "path and replica_url are required")
        if self._folders.find(path) is not None:
            return Reply({"status": "already_registered", "path": path})
        try:
            (plan,) = build(self._with(path, url), self._env)
            unit = self._units.add(plan)
        except ConfigError as error:
            return _error(400, str(error))
        except DatabaseStateError as error:
            return _error(409, str(error))
        except SQLiteReplicaError as error:
            return _error(500, str(error))
        return Reply(
            {
                "status": "already_registered" if unit is None else "registered",
                "path": plan.path,
            }
        )

    def _with(self, path: str, url: str) -> Config:
        import dataclasses

        db = DatabaseConfig(path=path, replicas=[ReplicaConfig(url=url)])
        return dataclasses.replace(self._config, dbs=[db])

    def _unregister(self, _: Mapping[str, str], body: _Body) -> Reply:
        path = body.get("path")
        if not isinstance(path, str) or not path:
            return _error(400, "path is required")
        if self._folders.find(path) is not None:
            return _error(409, f"{path} is of a dir of the configuration")
        unit = self._units.remove(path)
        if unit is None:
            return Reply({"status": "already_unregistered", "path": path, "txid": 0})
        txid = _txid_of(unit)
        try:
            unit.stop(_timeout(body))
        except SQLiteReplicaError as error:
            return _error(500, str(error))
        return _about(unit, "unregistered", txid)

    # -- all of it -------------------------------------------------------------------

    def _list(self, _: Mapping[str, str], __: _Body) -> Reply:
        listed = [_listed(unit) for unit in self._units]
        return Reply({"databases": [*listed, *self._folders.listed()]})

    def _info(self, _: Mapping[str, str], __: _Body) -> Reply:
        started = datetime.fromtimestamp(self._started, UTC)
        return Reply(
            {
                "version": version("sqlitereplica"),
                "pid": os.getpid(),
                "uptime_seconds": int(self._clock() - self._started),
                "started_at": _rfc3339(started),
                "database_count": len(self._units) + sum(map(len, self._folders)),
            }
        )

    def _statuses(self, query: Mapping[str, str], _: _Body) -> Reply:
        import msgspec

        wanted = query.get("path")
        group = self._folders.find(wanted) if wanted else None
        if group is not None and wanted is not None:
            status = group.status_of(wanted).status
            return Reply(
                {"databases": [] if status is None else [msgspec.to_builtins(status)]}
            )
        found = [
            msgspec.to_builtins(unit.replicator.status())
            for unit in self._units
            if unit.replicator is not None and wanted in (None, unit.plan.path)
        ]
        return Reply({"databases": found})


def _listed(unit: Unit) -> dict[str, Any]:
    replicator = unit.replicator
    if replicator is None:
        return {"path": unit.plan.path, "status": "stopped"}
    status = replicator.status()
    times = [r.last_success for r in status.replicas if r.last_success is not None]
    found: dict[str, Any] = {
        "path": unit.plan.path,
        "status": "replicating" if status.state == "running" else "open",
    }
    if times:
        found["last_sync_at"] = _rfc3339(max(times))
    return found


def _about(unit: Unit, status: str, txid: int | None = None) -> Reply:
    found = _txid_of(unit) if txid is None else txid
    return Reply({"status": status, "path": unit.plan.path, "txid": found})


def _txid_of(unit: Unit) -> int:
    return 0 if unit.replicator is None else unit.replicator.status().txid


def _timeout(body: _Body) -> float:
    value = body.get("timeout")
    good = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return float(value) if good and value is not None else _TIMEOUT


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _error(status: int, text: str) -> Reply:
    return Reply({"error": text}, status)
