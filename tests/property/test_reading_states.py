"""A reader of any replica sees what a restore would make, however the files come and go."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reading import open_view, pages_of
from support.recording import Recording
from support.replicas import arrange, memory_store, record

from sqlitereplica.errors import NotRestorableError
from sqlitereplica.reading import parts
from sqlitereplica.reading.view import View
from sqlitereplica.restore import reachable_txids

pytestmark = pytest.mark.property

LAST = 9


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Nine transactions that grow, change, shrink and grow again."""
    return record(tmp_path_factory.mktemp("recorded"), "source")


@st.composite
def files(draw: st.DrawFn) -> tuple[int, int, int]:
    """A file of some transactions, at a level at which it can be."""
    first = draw(st.integers(1, LAST))
    last = draw(st.integers(first, LAST))
    if first == 1 and draw(st.booleans()):
        return 9, first, last
    return (0 if first == last else draw(st.integers(1, 3))), first, last


@given(
    arranged=st.lists(files(), min_size=1, max_size=12, unique=True),
    small=st.sampled_from([0, 700, 1 << 20]),
    cache_size=st.sampled_from([1, 5000, 1 << 20]),
)
def test_states_are_those_that_can_be_restored(
    recorded: Recording,
    arranged: list[tuple[int, int, int]],
    small: int,
    cache_size: int,
) -> None:
    """Each transaction is read, page by page right, exactly if it can be restored."""
    store = memory_store()
    reachable = reachable_txids(arrange(recorded, store, arranged))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "SMALL_FILE", small)
        for txid in range(1, LAST + 1):
            try:
                view = open_view(store, txid, cache_size=cache_size)
            except NotRestorableError:
                assert txid not in reachable
                continue
            with closing(view):
                assert txid in reachable
                assert pages_of(view) == recorded.images[txid]


@given(
    steps=st.lists(
        st.one_of(
            st.lists(files(), max_size=3),  # published
            st.integers(0, 20),  # one of those that are there is deleted
            st.none(),  # a transaction reads
        ),
        max_size=25,
    ),
    small=st.sampled_from([0, 1 << 20]),
)
def test_follower_of_files_that_come_and_go_sees_states(
    recorded: Recording,
    steps: list[list[tuple[int, int, int]] | int | None],
    small: int,
) -> None:
    """It never goes back, never mixes, and ends at the newest if that can be restored."""
    store = memory_store()
    arrange(recorded, store, [(0, 1, 1)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "SMALL_FILE", small)
        with closing(open_view(store, cache_size=3000)) as view:
            for step in steps:
                if step is None:
                    look(recorded, view)
                elif isinstance(step, int):
                    there = store.list_all()
                    store.delete(there[step : step + 1])
                else:
                    arrange(recorded, store, step)
            arrange(recorded, store, [(9, 1, LAST), (0, LAST, LAST)])
            look(recorded, view)
            assert view.map.txid == LAST


def look(recorded: Recording, view: View) -> None:
    """One transaction: it sees one state, none before, or is told that it is gone."""
    before = view.map.txid
    view.begin()
    assert view.map.txid >= before
    try:
        assert pages_of(view) == recorded.images[view.map.txid]
    except NotRestorableError as error:
        if error.kind not in {"txid", "empty", "gap"}:
            raise
    view.end()
