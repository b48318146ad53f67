"""The table of page checksums, in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sqlitereplica.capture import PageTable
from sqlitereplica.ltx import database_checksum, lock_pgno

SUMS = st.integers(1 << 63, (1 << 64) - 1)
STATES = st.lists(
    st.tuples(st.integers(1, 40), st.dictionaries(st.integers(1, 40), SUMS)), max_size=8
)


@given(states=STATES)
def test_checksum_follows_any_history(
    states: list[tuple[int, dict[int, int]]],
) -> None:
    """Incremental and computed anew, the database checksum is the same."""
    table = PageTable(512)
    for commit, changes in states:
        table.apply(commit, [(p, s) for p, s in changes.items() if p <= commit])
        assert table.commit == commit
        assert table.checksum == database_checksum(table.sums)
        assert table.copy().checksum == table.checksum


@given(states=STATES)
def test_difference_leads_from_any_state_to_any_other(
    states: list[tuple[int, dict[int, int]]],
) -> None:
    """Applying what differs to the base gives the table."""
    tables = [PageTable(512)]
    for commit, changes in states:
        table = tables[-1].copy()
        table.apply(commit, [(p, s) for p, s in changes.items() if p <= commit])
        tables.append(table)
    for base in tables:
        for target in tables:
            pgnos = list(target.differs_from(base))
            assert pgnos == sorted(set(pgnos))
            copy = base.copy()
            copy.apply(target.commit, [(p, target.sums[p - 1]) for p in pgnos])
            assert copy.sums == target.sums


def test_forgotten_pages_differ_from_every_state() -> None:
    """What a replica missed is sent whatever it holds."""
    table = PageTable(512)
    table.apply(5, [(p, (1 << 63) + p) for p in range(1, 6)])
    base = table.copy()
    base.forget([2, 4, 99])
    assert list(table.differs_from(base)) == [2, 4]


def test_lock_page_is_never_sent() -> None:
    """It has no checksum and no place in a file."""
    lock = lock_pgno(65536)
    table = PageTable(65536)
    table.apply(lock + 2, [])
    assert lock not in set(table.differs_from(None))
    assert len(list(table.differs_from(None))) == lock + 1


def test_other_page_size_means_everything() -> None:
    """Page numbers of another page size say nothing."""
    table = PageTable(512)
    table.apply(3, [(p, (1 << 63) + p) for p in range(1, 4)])
    other = PageTable(1024)
    other.apply(3, [(p, (1 << 63) + p) for p in range(1, 4)])
    assert list(table.differs_from(other)) == [1, 2, 3]
