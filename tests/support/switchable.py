"""A store in memory that fails, or hangs, as long as a test wants it to."""

from __future__ import annotations

import threading
import time
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem

__all__ = ["SwitchableFileSystem"]


class SwitchableFileSystem(MemoryFileSystem):
    """``fail`` makes every operation raise, ``hang`` makes it wait for ``heal``."""

    protocol = "switchable"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.store: dict[str, Any] = {}
        self.pseudo_dirs = [""]
        self._error: BaseException | None = None
        self._well = threading.Event()
        self._well.set()
        self.latency = 0.0
        """Seconds that every upload takes."""

    def fail(self, error: BaseException | None = None) -> None:
        """Raise from now on."""
        self._error = error or ConnectionError("the store is away")

    def hang(self) -> None:
        """Answer nobody from now on."""
        self._well.clear()

    def heal(self) -> None:
        """Work from now on."""
        self._error = None
        self._well.set()

    def _trouble(self) -> None:
        self._well.wait()
        if self._error is not None:
            raise self._error

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        """As every store."""
        self._trouble()
        return super().ls(path, detail, **options)

    def info(self, path: str, **options: Any) -> Any:
        """As every store."""
        self._trouble()
        return super().info(path, **options)

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> Any:
        """As every store."""
        self._trouble()
        return super().cat_file(path, *arguments, **options)

    def pipe_file(self, path: str, value: bytes, *rest: Any, **options: Any) -> Any:
        """As every store."""
        self._trouble()
        time.sleep(self.latency)
        return super().pipe_file(path, value, *rest, **options)

    def put_file(self, lpath: str, rpath: str, *rest: Any, **options: Any) -> Any:
        """As every store."""
        self._trouble()
        time.sleep(self.latency)
        return super().put_file(lpath, rpath, *rest, **options)
