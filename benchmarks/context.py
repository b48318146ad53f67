"""Where a run works and how large it is."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from benchmarks import databases
from benchmarks.measure import python
from benchmarks.objectstore import ObjectStore, object_store

Figures = Mapping[str, float]
"""Numbers by what they are, the unit in the name."""


@dataclass(frozen=True)
class Context:
    """Sizes of a run and the folder for its data.

    ``size`` is MiB of the large database, ``seconds`` how long writers write, ``many``
    the number of databases or files where there are many.
    """

    folder: Path
    size: float = 256
    seconds: float = 5
    many: int = 100
    files: int = 500
    uploaded: dict[str, str] = field(default_factory=dict)
    """Paths of replicas in the object store by what they hold."""
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    @property
    def settle(self) -> float:
        """Seconds until a system that has nothing to do is at rest."""
        return min(3.0, self.seconds)

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """An empty folder for one measurement, removed after it."""
        folder = self.folder / "w"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    @cached_property
    def large(self) -> Path:
        """A database of ``size`` MiB, alone in its file, made once."""
        path = self.folder / "large.db"
        if not path.exists():
            databases.make_sized(path, self.size)
        return path

    @cached_property
    def remote(self) -> ObjectStore:
        """An object store, started when first asked for."""
        return self._stack.enter_context(object_store(self.folder / "s3"))


class Writer:
    """The application: a process that writes and then waits with its files open."""

    def __init__(self, kind: str, database: Path, **options: object) -> None:
        command = python("writer", kind, database)
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def result(self) -> dict[str, Any]:
        """What it measured; returns when it has written all."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the writer failed")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        """Let it close its database."""
        self._process.communicate()
