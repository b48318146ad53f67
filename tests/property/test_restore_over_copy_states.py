"""A restore over any old file, from any replica, is the state and nothing else."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import event, given
from hypothesis import strategies as st
from support.pagemodel import (
    PAGE_SIZE,
    History,
    State,
    encode,
    header_of,
    histories,
    page_sums,
    state_after,
)

from sqlitereplica.restore import reachable_txids, restore, ways
from sqlitereplica.restore.sums import put_sums
from sqlitereplica.store import LTXStore

pytestmark = pytest.mark.property


@pytest.fixture(scope="module", autouse=True)
def _free_requests() -> object:
    """Small databases, too, are worth a request: every way is gone."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ways, "REQUEST_COST", 0)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for the databases."""
    return tmp_path_factory.mktemp("over")


class Replica:
    """A replica of a history: increments, some merged, some images with checksums."""

    def __init__(self, history: History) -> None:
        self.history = history
        memory = MemoryFileSystem(skip_instance_cache=True)
        memory.store, memory.pseudo_dirs = {}, [""]
        self.store = LTXStore.open(memory, path="/replica")

    def put(self, level: int, first: int, last: int) -> None:
        """Publish the file of these transactions."""
        data = encode(self.history, first, last)
        self.store.put(level, first, last, data, timestamp=last)

    def sums(self, txid: int) -> None:
        """Publish the page checksums of a state."""
        sums = array("Q", page_sums(state_after(self.history, txid)))
        put_sums(self.store, header_of(self.history, 1, txid), sums)


@st.composite
def replicas(draw: st.DrawFn) -> Replica:
    """Any replica from which something can be restored."""
    replica = Replica(draw(histories(alike=draw(st.booleans()))))
    count = len(replica.history)
    for txid in range(1, count + 1):
        if txid == 1 or draw(st.sampled_from([True, True, True, False])):
            replica.put(0, txid, txid)
    for _ in range(draw(st.integers(0, 3))):
        first = draw(st.integers(1, count))
        replica.put(draw(st.integers(1, 8)), first, draw(st.integers(first, count)))
    for txid in draw(st.sets(st.integers(1, count), max_size=2)):
        replica.put(9, 1, txid)
    for txid in range(1, count + 1):
        if draw(st.sampled_from([True, True, True, False])):
            replica.sums(txid)
    return replica


@st.composite
def olds(draw: st.DrawFn, replica: Replica) -> State:
    """The pages of some old file: of a state, of several, of none."""
    count = len(replica.history)
    pages = list(state_after(replica.history, draw(st.integers(0, count))))
    other = state_after(replica.history, draw(st.integers(1, count)))
    for pgno in draw(st.sets(st.integers(1, len(other)), max_size=3)):
        pages[pgno - 1 : pgno] = [other[pgno - 1]]
    return tuple(pages)


@given(st.data(), replicas())
def test_restore_over_any_file_is_the_state(
    folder: Path, data: st.DataObject, replica: Replica
) -> None:
    """Whatever was there, noted as restored or not, the bytes are those of the state."""
    path = folder / "a.db"
    path.unlink(missing_ok=True)
    reachable = st.sampled_from(reachable_txids(replica.store.list_all()))
    if data.draw(st.booleans(), "restored before"):
        restore(replica.store, path, txid=data.draw(reachable, "then"), verify=None)
        how = data.draw(st.sampled_from(["not", "any way", "in two pages alike"]))
        if how == "any way":
            change(path, data.draw(olds(replica)))
        elif how == "in two pages alike" and path.stat().st_size > PAGE_SIZE:
            change(path, alike(path.read_bytes()))
    else:
        path.write_bytes(b"".join(data.draw(olds(replica))))
    if data.draw(st.booleans(), "odd size"):
        with path.open("ab") as file:
            file.write(b"?")
    txid = data.draw(reachable, "txid")
    with warnings() as noted:
        result = restore(
            replica.store, path, txid=txid, if_exists="replace", verify=None
        )
    assert noted == [], "nothing is wrong with this replica"
    state = state_after(replica.history, txid)
    assert path.read_bytes() == b"".join(state)
    assert (result.txid, result.commit) == (txid, len(state))
    assert result.pages_reused <= len(state)
    event(result.reason if not result.restored else f"reused {result.pages_reused > 0}")


@contextmanager
def warnings() -> Iterator[list[str]]:
    """What the restore complains about."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("sqlitereplica.restore")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


def alike(image: bytes) -> State:
    """The pages with the same bit changed in the first two: the checksum stays."""
    pages = [image[at : at + PAGE_SIZE] for at in range(0, len(image), PAGE_SIZE)]
    pages[:2] = [page[:-2] + bytes([page[-2] ^ 1]) + page[-1:] for page in pages[:2]]
    return tuple(pages)


def change(path: Path, pages: State) -> None:
    """Write other pages into the same file, which keeps its note."""
    with path.open("r+b") as file:
        file.write(b"".join(pages))
        file.truncate()
