"""Litestream's daemon on one database."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.litestream import Litestream

__all__ = ["Daemon"]

_QUICK = {"monitor-interval": "200ms", "checkpoint-interval": "0s"}
_READY = 60.0


class Daemon:
    """``litestream replicate``, from ``with`` to its end by SIGTERM.

    ``replica`` is a URL or the mapping of its configuration; ``settings`` are global ones
    (litestream.md 7.1).
    """

    def __init__(
        self,
        litestream: Litestream,
        database: Path,
        replica: str | Mapping[str, Any],
        *,
        env: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self._litestream, self._database = litestream, database
        self._env = dict(env or {})
        # Not in tmp_path: the path of a socket has to be short.
        self._folder = Path(tempfile.mkdtemp(prefix="ls-"))
        self._socket = self._folder / "s"
        where = {"url": replica} if isinstance(replica, str) else dict(replica)
        source = {"path": str(database), "replica": {"sync-interval": "50ms", **where}}
        self._config = {
            "dbs": [{**_QUICK, **source}],
            "socket": {"enabled": True, "path": str(self._socket)},
            **{name.replace("_", "-"): value for name, value in settings.items()},
        }
        self._log = self._folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        config = self._folder / "litestream.yml"
        config.write_text(json.dumps(self._config))  # JSON is YAML
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [self._litestream.path, "replicate", "-config", config],
                env=self._litestream.env(**self._env),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _READY
        while not self._socket.exists():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)
        # One that is told to end before it has opened the database ends without a flush.
        self.sync()
        return self

    @property
    def log(self) -> str:
        """What it printed so far."""
        return self._log.read_text()

    def sync(self) -> None:
        """Return when what is committed is in the replica."""
        self._litestream.run(
            "sync", "-wait", "-socket", self._socket, self._database, **self._env
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(45)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            code = -signal.SIGKILL
        log = self.log
        shutil.rmtree(self._folder)
        if error is None:
            assert code == 0, log
            assert "level=ERROR" not in log, log
        else:
            error.add_note(log)
