"""``progress``: a bar for what takes long, drawn by tqdm or rich, whichever is installed.

fsspec's callbacks are the interface: ``restore``, ``verify`` and ``Branch.finish`` take one, as
fsspec itself does. Neither package is imported before a bar is asked for.

A bar is finished when all that was expected is there, not when the callback goes: until then
its last state may not have been drawn. Who expects more after that gets another one.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from importlib.util import find_spec
from typing import Any

from fsspec.callbacks import Callback

__all__ = ["progress"]

_EVERY = 0.1


def progress(description: str = "", *, unit: str = "B") -> Callback:
    """Make an fsspec callback that draws a bar, in a terminal or in a notebook.

    It is for one call.

    Example:
        >>> restore(replica, "app.db", callback=progress())  # doctest: +SKIP

    Args:
        description: What is written before the bar.
        unit: What is counted: bytes, or for ``Branch.finish`` ``"pages"``.

    Raises:
        ImportError: Neither tqdm nor rich is installed.
    """
    if _is_installed("tqdm"):
        return _TqdmBar(description, unit)
    if _is_installed("rich"):
        return _RichBar(description, unit)
    raise ImportError(
        "progress() needs tqdm or rich: pip install 'sqlitereplica[progress]'"
    )


class _Bar(Callback):  # type: ignore[misc]
    def __init__(self, description: str, unit: str) -> None:
        super().__init__()
        self.description, self.unit = description, unit
        self._bar: Any = None

    def call(self, *_: Any, **__: Any) -> None:
        """Draw how far it is."""
        is_done = self.value >= (self.size or 0)
        if self._bar is None:
            if is_done:
                return
            self._bar = self.begin()
        self.draw(self._bar)
        if is_done:
            self.close()

    def close(self) -> None:
        """Leave the bar as it is."""
        bar, self._bar = self._bar, None
        if bar is not None:
            self.end(bar)

    def __del__(self) -> None:
        self.close()

    @abstractmethod
    def begin(self) -> Any:
        """Make what draws."""

    @abstractmethod
    def draw(self, bar: Any) -> None:
        """Show ``value`` of ``size``."""

    @abstractmethod
    def end(self, bar: Any) -> None:
        """Let it go."""


class _TqdmBar(_Bar):
    def begin(self) -> Any:
        # Without ipywidgets tqdm.auto warns, and draws what tqdm.std does.
        if _is_installed("ipywidgets"):
            from tqdm.auto import tqdm
        else:
            from tqdm.std import tqdm
        divisor = 1024 if self.unit == "B" else 1000
        description = self.description or None
        return tqdm(
            desc=description,
            total=self.size,
            unit=self.unit,
            unit_scale=True,
            unit_divisor=divisor,
        )

    def draw(self, bar: Any) -> None:
        bar.total = self.size
        bar.update(self.value - bar.n)

    def end(self, bar: Any) -> None:
        bar.close()


class _RichBar(_Bar):
    _next = 0.0

    def begin(self) -> Any:
        from rich import progress as bars
        from rich.console import Console

        widgets = None if _is_installed("ipywidgets") else False
        in_bytes = self.unit == "B"
        bar = bars.Progress(
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(),
            bars.DownloadColumn(True) if in_bytes else bars.MofNCompleteColumn(),
            bars.TimeRemainingColumn(),
            console=Console(stderr=True, force_jupyter=widgets),  # as tqdm
            auto_refresh=False,  # no thread that goes on drawing when a call has failed
        )
        bar.add_task(self.description, total=None)
        bar.start()
        return bar

    def draw(self, bar: Any) -> None:
        now = time.monotonic()
        is_due = now >= self._next
        if is_due:
            self._next = now + _EVERY
        done, task = self.value, bar.task_ids[0]
        bar.update(task, total=self.size, completed=done, refresh=is_due)

    def end(self, bar: Any) -> None:
        bar.stop()


def _is_installed(package: str) -> bool:
    return find_spec(package) is not None
