"""Worker processes of one application, driven from a test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from support import worker_child

__all__ = ["Refused", "WorkerProcess", "elected_of", "until"]


class Refused(Exception):  # noqa: N818  (it is an answer)
    """A command raised; ``answer`` says what."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer)
        self.answer = answer


class WorkerProcess:
    """One process; killed at the end of ``with``, if it did not end before."""

    _env: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        database: Path,
        replicas: Sequence[Path | str],
        *,
        restore: str = "",
        lease: str = "",
    ) -> None:
        given = {"WORKER_RESTORE": restore, "WORKER_LEASE": lease}
        self._env = {name: value for name, value in given.items() if value}
        self._command = [
            sys.executable,
            worker_child.__file__,
            str(database),
            *map(str, replicas),
        ]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **self._env},
        )
        self.pid = self._read()["pid"]
        return self

    def __call__(self, *command: Any) -> Any:
        """Have a command done; its value. Raises Refused."""
        self.begin(*command)
        return self.end()

    def begin(self, *command: Any) -> None:
        """Tell it a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def end(self) -> Any:
        """Wait for what came of it."""
        answer = self._read()
        if "error" in answer:
            raise Refused(answer)
        return answer["value"]

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"worker {self.process.pid} ended"
        found: dict[str, Any] = json.loads(line)
        return found

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal; wait for its end if that is SIGKILL."""
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()

    def leave(self) -> int:
        """End of input: it exits as programs do; its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(90)

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # what it was told last, it never read


def until(found: Callable[[], Any], *, seconds: float = 60) -> Any:
    """The first true value of ``found()``."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return value


def elected_of(workers: Sequence[WorkerProcess]) -> WorkerProcess:
    """The one that all agree on."""

    def agreed() -> WorkerProcess | None:
        pids = {worker("status")["pid"] for worker in workers}
        return next((w for w in workers if {w.pid} == pids), None)

    found: WorkerProcess = until(agreed)
    return found
