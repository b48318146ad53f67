"""What commands print: JSON or tables to standard output, progress to a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from fsspec.callbacks import Callback

from sqlitereplica.sizes import size_text

__all__ = [
    "Bar",
    "print_json",
    "print_table",
    "printable",
    "progress",
    "time_text",
]

_EVERY = 0.1
_WIDTH = 24


def print_json(value: object) -> None:
    """Print a value as one indented JSON document."""
    import msgspec

    data = value if isinstance(value, bytes) else msgspec.json.encode(value)
    print(msgspec.json.format(data, indent=2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under the names of their columns, numbers to the right."""
    columns = [printable(name) for name in columns]
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(columns, *texts, strict=True)]
    numeric = [
        bool(texts) and all(row[i].replace(".", "").isdigit() for row in texts)
        for i in range(len(columns))
    ]
    for row in (columns, *texts):
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        print("  ".join(cells).rstrip())


def printable(text: str) -> str:
    """A text on one line, and without what a terminal would take for a command."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def time_text(time: datetime | None) -> str:
    """A time in RFC 3339, UTC, to the second; ``-`` for none."""
    if time is None:
        return "-"
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Bar(Callback):  # type: ignore[misc]
    """An fsspec callback that draws one line on a terminal: share, rate, time that is left."""

    def __init__(
        self,
        what: str,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._what, self._stream, self._clock = what, stream, clock
        self._began = self._drawn = clock()
        self._is_drawn = False

    def call(self, *_: Any, **__: Any) -> None:
        """Draw, but not more often than anybody can see."""
        now = self._clock()
        if now - self._drawn >= _EVERY:
            self._drawn = now
            self._stream.write("\r" + self.line(now) + "\x1b[K")
            self._stream.flush()
            self._is_drawn = True

    def line(self, now: float) -> str:
        """What is drawn at a time."""
        done, size = self.value or 0, self.size or 0
        seconds = max(now - self._began, 1e-9)
        rate = done / seconds
        share = min(done / size, 1.0) if size else 0.0
        bar = "#" * round(share * _WIDTH)
        left = f", {_clock_text((size - done) / rate)} left" if rate and size else ""
        return (
            f"{self._what} [{bar.ljust(_WIDTH, '.')}] {share:4.0%}"
            f"  {size_text(done)} of {size_text(size)}, {size_text(round(rate))}/s{left}"
        )

    def close(self) -> None:
        """Take the line away."""
        if self._is_drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def progress(what: str, stream: TextIO | None = None) -> Bar | None:
    """A bar on a terminal, nothing in a pipe."""
    stream = sys.stderr if stream is None else stream
    return Bar(what, stream) if stream.isatty() else None


def _clock_text(seconds: float) -> str:
    seconds = max(0, round(seconds))
    hours, rest = divmod(seconds, 3600)
    return (
        f"{hours}:{rest // 60:02}:{rest % 60:02}"
        if hours
        else f"{rest // 60}:{rest % 60:02}"
    )
