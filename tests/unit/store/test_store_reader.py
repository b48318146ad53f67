"""Reading a stored file from beginning to end."""

from __future__ import annotations

from sqlitereplica.store.reader import StoreReader

DATA = bytes(range(256)) * 40_000


def reader(asked: list[tuple[int, int]] | None = None) -> StoreReader:
    """A reader of ten megabytes that notes what it asks for."""

    def fetch(start: int, end: int) -> bytes:
        if asked is not None:
            asked.append((start, end))
        return DATA[start:end]

    return StoreReader(fetch, len(DATA))


def test_ranges_are_fetched_ahead_of_need() -> None:
    """Few requests, each once, in order, and none beyond the end."""
    asked: list[tuple[int, int]] = []
    with reader(asked) as file:
        pieces = []
        while piece := file.read(10_000):
            pieces.append(piece)
    assert b"".join(pieces) == DATA
    four = 4 << 20
    assert asked == [(0, four), (four, 2 * four), (2 * four, len(DATA))]


def test_rest_is_read_at_once() -> None:
    """A negative number is everything that is left."""
    file = reader()
    assert file.read(5) == DATA[:5]
    assert file.read(-1) == DATA[5:]
    assert file.read(-1) == b""


def test_closed_reader_is_at_its_end() -> None:
    """Nothing is fetched after closing."""
    asked: list[tuple[int, int]] = []
    file = reader(asked)
    file.close()
    assert file.read(10) == b""
    assert asked == []
