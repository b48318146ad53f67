"""Listings that no store would make up, for properties of plans."""

from __future__ import annotations

from hypothesis import strategies as st

from sqlitereplica.ltx import FileInfo

__all__ = ["LAST_TIME", "LAST_TXID", "files", "listings"]

LAST_TXID = 12
LAST_TIME = 9


@st.composite
def files(draw: st.DrawFn) -> FileInfo:
    """Any file; those of the snapshot level begin with TXID 1."""
    level = draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3, 8, 9]))
    first = 1 if level == 9 else draw(st.integers(1, LAST_TXID))
    last = draw(st.integers(first, min(LAST_TXID, first + 5)))
    time = draw(st.integers(0, LAST_TIME))
    # Different for each name, so that plans of different files cost different sums.
    size = 1 << (level + 10 * last) | 1 << (200 + first)
    return FileInfo(level, first, last, size, time)


listings = st.lists(files(), max_size=24)
