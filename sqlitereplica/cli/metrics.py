"""What is served on ``addr``: ``/metrics`` for Prometheus, ``/health`` for load balancers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlitereplica.cli.folders import Folders
from sqlitereplica.cli.serving import Reply, Routes
from sqlitereplica.cli.units import Units
from sqlitereplica.errors import ConfigError
from sqlitereplica.group import ReplicatorGroup

__all__ = ["Metrics"]


class Metrics:
    """Metrics of all databases, in a registry of its own."""

    def __init__(self) -> None:
        """Raises ConfigError if prometheus_client is missing."""
        try:
            from sqlitereplica.integrations.prometheus import Exporter
        except ImportError as error:
            raise ConfigError(
                "addr needs prometheus-client: pip install 'sqlitereplica[cli]'",
                kind="missing-package",
            ) from error
        self._exporter = Exporter()
        self.observer = self._exporter.observer

    def routes(self, units: Units, folders: Folders | None = None) -> Routes:
        """What is served; nothing for profiling is."""
        groups = list(folders or ())

        def metrics(_: Mapping[str, str], __: Mapping[str, Any]) -> Reply:
            for group in groups:
                self.observer.tell_group(group.status())
            return Reply(self._exporter.page(), kind=self._exporter.content_type)

        def health(_: Mapping[str, str], __: Mapping[str, Any]) -> Reply:
            return _health(units, groups)

        return {("GET", "/metrics"): metrics, ("GET", "/health"): health}


def _health(units: Units, groups: Sequence[ReplicatorGroup] = ()) -> Reply:
    """Each database as ``Replicator.health`` has it; 503 unless all are well.

    A folder of databases is one entry, with counts.
    """
    found = []
    for unit in units:
        replicator = unit.replicator
        if replicator is None:
            found.append(
                {"database": unit.plan.path, "ok": False, "reasons": ["stopped"]}
            )
        else:
            report = replicator.health()
            found.append(
                {"database": unit.plan.path, **json.loads(report.to_json().decode())}
            )
    for group in groups:
        row = json.loads(group.health().to_json().decode())
        found.append({"database": group.dir, **row})
    ok = all(row["ok"] for row in found)
    return Reply({"ok": ok, "databases": found}, 200 if ok else 503)
