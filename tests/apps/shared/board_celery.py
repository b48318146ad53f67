"""The board as tasks of celery: the worker sends them to itself as soon as it is ready.

The broker is its memory. (That of folders reads messages that are not written yet.) What
the tasks return is put into ``BOARD_RESULTS``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import board
from celery import Celery
from celery.signals import worker_ready

__all__ = ["add", "app"]

RESULTS = Path(os.environ["BOARD_RESULTS"])

app = Celery("board", broker="memory://")
app.conf.worker_hijack_root_logger = False


@app.task  # type: ignore[untyped-decorator]
def add(name: str) -> None:
    """Commit a note, and tell its number, this process and the one that replicates."""
    number, elected = board.add(name), board.replicator.status().pid
    found = {"id": number, "pid": os.getpid(), "elected": elected}
    temporary = RESULTS / f"{name}.tmp"
    temporary.write_text(json.dumps(found))
    temporary.rename(RESULTS / f"{name}.json")


@worker_ready.connect  # type: ignore[untyped-decorator]
def send(**_: Any) -> None:
    """Send the tasks."""
    RESULTS.mkdir()
    for number in range(16):
        add.delay(str(number))
