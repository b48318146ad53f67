"""The daemon: databases, a child process, signals, a port for metrics, a control socket.

A thin edge. What it adds to the library: it restores what is missing before it starts,
it hands signals on to the child and ends with it, and when the date in the path of a
replica changes it starts that database's Replicator anew with the new one.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from types import FrameType
from typing import Any

from sqlitereplica.cli.control import Control
from sqlitereplica.cli.exits import FAILED, INTERRUPTED
from sqlitereplica.cli.folders import Folders
from sqlitereplica.cli.heartbeat import Heartbeat
from sqlitereplica.cli.logs import make_handler
from sqlitereplica.cli.metrics import Metrics
from sqlitereplica.cli.serving import parse_address, serve_port, serve_socket
from sqlitereplica.cli.units import Unit, Units, told_of
from sqlitereplica.config import Config, DatabasePlan
from sqlitereplica.errors import ConfigError, DatabaseStateError, SQLiteReplicaError

__all__ = ["Daemon", "check_settings"]

logger = logging.getLogger("sqlitereplica.cli")

_LOOK_EVERY = 0.5
_HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # not on Windows
_SIGNALS = [s for s in (signal.SIGINT, signal.SIGTERM, _HANGUP) if s is not None]


class Daemon:
    """Runs the databases of a configuration until it is told to stop."""

    def __init__(
        self,
        config: Config,
        plans: Sequence[DatabasePlan],
        *,
        restore_all: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        """Raises ConfigError if there is nothing to do, or not as it is said."""
        if not plans and not config.socket.enabled:
            raise ConfigError("no databases are configured")
        self._config, self._restore_all = config, restore_all
        self._metrics = Metrics() if config.addr else None
        observed = {} if self._metrics is None else {"observer": self._metrics.observer}
        single = [plan for plan in plans if not plan.is_folder]
        self._units = Units(single, now, **observed)
        self._folders = Folders(plans, self._observed)
        self._heartbeat = Heartbeat.of(config)
        self._stopping = threading.Event()
        self._signals = 0
        self._child: subprocess.Popen[bytes] | None = None

    def _observed(self, folder: str) -> dict[str, Any]:
        """How the databases of a folder are observed: not each by itself."""
        metrics = self._metrics
        return {} if metrics is None else {"observer": metrics.observer.under(folder)}

    # -- one pass --------------------------------------------------------------------

    def run_once(self, *, snapshot: bool, retention: bool) -> int:
        """Make everything durable, and end; the exit code."""
        code = 0
        for unit in self._units:
            try:
                self._pass(unit, snapshot=snapshot, retention=retention)
            except SQLiteReplicaError as error:
                logger.error("%s", told_of(unit.plan.path, error))
                code = FAILED
        for group in self._folders:
            self._tell_limits(group.dir)
            try:
                self._folders.one_pass(group, snapshot=snapshot, retention=retention)
            except (SQLiteReplicaError, OSError) as error:
                for text in (told_of(group.dir, error), *_notes_of(error)):
                    logger.error("%s", text)
                code = FAILED
        return code

    def _pass(self, unit: Unit, *, snapshot: bool, retention: bool) -> None:
        self._prepare(unit)
        if not os.path.exists(unit.plan.path):
            raise DatabaseStateError(
                f"{unit.plan.path} does not exist, so there is nothing to replicate",
                path=unit.plan.path,
                kind="cannot-open",
            )
        unit.start()
        replicator = unit.replicator
        assert replicator is not None
        try:
            replicator.sync(timeout=None)
            if snapshot:
                replicator.snapshot()
            if retention:
                replicator.enforce_retention()
        finally:
            unit.stop()

    # -- until stopped ---------------------------------------------------------------

    def run(self, command: str | None) -> int:
        """Replicate, and run the command, until it or a signal ends it; the exit code."""
        words = _words_of(command) if command else None
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
                signal.signal(number, self._on_signal)
        failed: list[Exception] = []
        code = 0
        with ExitStack() as stack:
            stack.callback(lambda: failed.extend(self._folders.stop_all()))
            stack.callback(lambda: failed.extend(self._units.stop_all()))
            if self._begin_all():
                self._serve(stack)
                if words:
                    self._start_child(words)
                code = self._wait()
        if failed and not code:
            code = FAILED
        return code

    def _begin_all(self) -> bool:
        """Start all; False if the end has come before."""
        for unit in self._units:
            if self._stopping.is_set():
                return False
            self._begin(unit)
        for group in self._folders:
            if self._stopping.is_set():
                return False
            self._tell_limits(group.dir)
            self._folders.start(group)
        return True

    def _tell_limits(self, folder: str) -> None:
        """Say what was asked for and is not done for the databases of a folder."""
        for asked, what in (
            (self._restore_all, "they are not restored first: restore them one by one"),
            (
                self._config.verify_interval or self._config.validation.interval,
                "they are not verified in the background: sqlitereplica verify -all does",
            ),
        ):
            if asked:
                logger.warning("databases of %s: %s", folder, what)

    def _begin(self, unit: Unit) -> None:
        self._prepare(unit)
        unit.start()
        path, names = unit.plan.path, ", ".join(unit.replica_names)
        logger.info("replicating %s to %s", path, names)
        if not os.path.exists(path):
            logger.warning("%s does not exist yet: it is waited for", path)

    def _start_child(self, words: Sequence[str]) -> None:
        """Run the command, unless the end has come already."""
        if self._stopping.is_set():
            return
        try:
            self._child = subprocess.Popen(words)
        except OSError as error:
            raise ConfigError(f"-exec {words[0]}: {error.strerror}") from error
        if self._stopping.is_set():  # in between, when there was none to tell
            self._child.terminate()

    def _prepare(self, unit: Unit) -> None:
        if self._restore_all or unit.plan.config.restore_if_db_not_exists:
            unit.restore()
        unit.expire()

    def _serve(self, stack: ExitStack) -> None:
        """Open what is configured; it is closed before the databases are stopped."""
        if self._metrics is not None and self._config.addr:
            routes = self._metrics.routes(self._units, self._folders)
            server = serve_port(self._config.addr, routes)
            stack.callback(server.close)
            logger.info("metrics and health on %s", server.where)
        control = self._config.socket
        if control.enabled:
            routes = Control(self._units, self._config, self._folders).routes()
            mode = _mode_of(control.permissions)
            stack.callback(serve_socket(control.path, mode, routes).close)
            logger.info("control socket %s", control.path)

    def _wait(self) -> int:
        """Until a signal comes or the child ends; the exit code."""
        while not self._stopping.wait(_LOOK_EVERY):
            if self._child is not None and self._child.poll() is not None:
                return _code_of(self._child.returncode)
            self._tend()
        if self._child is None:
            return 0
        return _code_of(self._child.wait())

    def _tend(self) -> None:
        for unit in self._units:
            try:
                unit.roll()
            except SQLiteReplicaError as error:
                logger.error("%s", told_of(unit.plan.path, error))
        if self._heartbeat is not None:
            units = list(self._units)
            running = [u.replicator for u in units if u.replicator is not None]
            statuses = (replicator.status() for replicator in running)
            if not any(unit.is_down for unit in units):
                self._heartbeat.look(
                    statuses,
                    time.monotonic(),
                    time.time(),
                    groups=[group.health for group in self._folders],
                )

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if number == _HANGUP:
            # The terminal is gone, and may say so twice. For the child it may mean to go on.
            if self._stopping.is_set():
                return
            number = signal.SIGTERM
        self._signals += 1
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)
        if self._signals > 1:
            os._exit(INTERRUPTED)  # somebody insists: nothing is waited for
        self._stopping.set()


def _notes_of(error: Exception) -> list[str]:
    """What went wrong beside it."""
    return list(getattr(error, "__notes__", ()))


def check_settings(config: Config) -> None:
    """Raise ConfigError for what a daemon would refuse when it starts."""
    make_handler(config.logging)
    Heartbeat.of(config)
    _mode_of(config.socket.permissions)
    if config.addr:
        parse_address(config.addr)
    if config.exec:
        _words_of(config.exec)


def _mode_of(text: str) -> int:
    """Permissions from octal digits; raises ConfigError."""
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ConfigError(
            f"socket permissions {text!r} are no octal number such as 0600"
        )
    return mode


def _words_of(command: str) -> list[str]:
    """A command as its words; raises ConfigError."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"-exec {command!r}: {error}") from error
    if not words:
        raise ConfigError("-exec needs a command")
    return words


def _code_of(returncode: int) -> int:
    """A shell's exit code for a process that a signal ended."""
    return returncode if returncode >= 0 else 128 - returncode
