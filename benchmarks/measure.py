"""What processes cost: CPU, memory, wall time, the size that a WAL file reached."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

_TICKS = os.sysconf("SC_CLK_TCK")
_MIB = 1 << 20

T = TypeVar("T")


def cpu_seconds(pid: int) -> float:
    """User and system CPU seconds of a living process, in steps of 10 ms."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_rss(pid: int) -> float:
    """The most memory that a living process has had resident, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has ended")


def resident(pid: int) -> float:
    """The memory that a living process has resident now, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB


def forget_peak_rss(pid: int) -> None:
    """Let ``peak_rss`` of a process begin at what it has resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@dataclass(frozen=True, slots=True)
class Run:
    """One process from start to end. Times in seconds, memory in MiB."""

    wall: float
    cpu: float
    printed: str


def run(command: Sequence[str | os.PathLike[str]], **env: str) -> Run:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; the message has what it printed.
    """
    begun = time.perf_counter()
    process = subprocess.Popen(
        [os.fspath(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(**env),
    )
    assert process.stdout is not None
    with process.stdout:
        printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    text = printed.decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{command[0]}: {text[-2000:]}")
    return Run(wall, usage.ru_utime + usage.ru_stime, text)


def environment(**env: str) -> dict[str, str]:
    """This process's variables without one over which Litestream's S3 client stumbles."""
    kept = {k: v for k, v in os.environ.items() if k != "AWS_CA_BUNDLE"}
    return {**kept, **env}


def python(module: str, *arguments: object) -> list[str]:
    """The command that runs a module of this package."""
    return [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]


def wait_for(look: Callable[[], T | None], timeout: float, pause: float = 0.01) -> T:
    """Ask until the answer is not None.

    Raises:
        TimeoutError: it stayed None for ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing within {timeout:g} s")
        time.sleep(pause)
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0..1) of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class WalWatch:
    """Notes the largest size of a ``-wal`` file while in the with statement."""

    def __init__(self, database: Path) -> None:
        self._path = f"{database}-wal"
        self._peak = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @property
    def peak_mib(self) -> float:
        return self._peak / _MIB

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            try:
                self._peak = max(self._peak, os.stat(self._path).st_size)
            except FileNotFoundError:
                continue
