"""Hosts of one application, each a process with a folder of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import host_child
from support.workers import WorkerProcess

__all__ = ["HostProcess", "Place"]


@dataclass(frozen=True)
class Place:
    """Where the replica is."""

    url: str
    storage: Mapping[str, Any] | None = None


class HostProcess(WorkerProcess):
    """One host; killed at the end of ``with``, if it did not end before."""

    def __init__(self, folder: Path, place: Place, **options: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.database = folder / "app.db"
        given = {"host": folder.name, "storage": place.storage, **options}
        self._command = [
            sys.executable,
            host_child.__file__,
            str(self.database),
            place.url,
            json.dumps(given),
        ]
