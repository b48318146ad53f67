"""The command ``sqlitereplica``, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from sqlitereplica.cli import main

__all__ = ["CommandLine", "count", "eventually", "make_app", "write"]

_PATIENCE = 60.0


@dataclass
class CommandLine:
    """Runs commands in a folder, with variables beside the present ones."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def __call__(
        self, *arguments: str, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run one in this process; it has to end with ``code``."""
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.folder),
            mock.patch.dict(os.environ, self.env),
            _same_logging(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            found = main(arguments)
        done = subprocess.CompletedProcess(
            arguments, found, out.getvalue(), err.getvalue()
        )
        assert done.returncode == code, done
        return done

    def process(
        self, *arguments: str, code: int = 0, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run one as a process; it has to end with ``code``."""
        given: dict[str, Any] = {"capture_output": True, **options}
        done = subprocess.run(
            self._command(*arguments),
            check=False,
            cwd=self.folder,
            env=self.environment,
            timeout=_PATIENCE * 2,
            text=True,
            **given,
        )
        assert done.returncode == code, done
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        """What it prints as JSON."""
        return json.loads(self(*arguments, "-json", code=code).stdout)

    @contextmanager
    def background(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run ``replicate`` until the end of the block, then end it by SIGTERM."""
        with self.killed(*arguments) as process:
            yield process
            process.send_signal(signal.SIGTERM)
            code = process.wait(_PATIENCE)
            assert code == 0, self._logs()[-1].read_text()

    @contextmanager
    def killed(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run ``replicate`` until the end of the block, then end it by SIGKILL."""
        log = self.folder / f"log-{len(self._logs())}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._command(*arguments),
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            eventually(
                lambda: process.poll() is not None or "replicating" in log.read_text(),
                "the daemon",
            )
            yield process
        finally:
            process.kill()
            process.wait()

    @property
    def environment(self) -> dict[str, str]:
        """All variables, so that the package under test is found in any folder."""
        path = str(Path(__file__).parents[2])
        return {**os.environ, "PYTHONPATH": path, **self.env}

    def _logs(self) -> list[Path]:
        return sorted(self.folder.glob("log-*"))

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "sqlitereplica", *arguments]


@contextmanager
def _same_logging() -> Iterator[None]:
    """Leave the logger of the library as it was."""
    logger = logging.getLogger("sqlitereplica")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def make_app(path: Path, rows: int = 10) -> None:
    """A small database in WAL mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("pragma journal_mode = wal")
        db.execute("create table note(id integer primary key, body)")
    write(path, rows)


def write(path: Path, rows: int) -> None:
    """Commit rows, one by one."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as db:
        for _ in range(rows):
            db.execute("insert into note(body) values(hex(randomblob(50)))")


def count(path: Path) -> int:
    """How many rows there are."""
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("select count(*) from note").fetchone()[0])


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds; an error after a minute."""
    end = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < end, f"in vain waited for: {what}"
        time.sleep(0.05)
