"""Snapshots that are ahead of the state made of them, in a model without files."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sqlitereplica.restore.ahead import Ahead
from sqlitereplica.sqlite.walstream import WalFrames

pytestmark = pytest.mark.property

PAGES = 5
PAGE_SIZE = 8

Transaction = dict[int, int]  # what it writes to which page
Image = list[int]


@dataclass
class Case:
    """A WAL on a database of zeros, and how far checkpoints brought it into that.

    ``checkpoints`` are pairs: the transactions in the WAL, and how many of them may be
    copied. Only a page that has no later frame in the WAL is.
    """

    wal: list[Transaction]
    checkpoints: list[tuple[int, int]]
    asked: int
    """How many transactions are applied to the snapshot."""

    def state(self, count: int) -> Image:
        """The database after so many transactions."""
        image = [0] * PAGES
        for transaction in self.wal[:count]:
            for pgno, value in transaction.items():
                image[pgno - 1] = value
        return image

    def snapshot(self) -> Image:
        """The database file."""
        image = [0] * PAGES
        for present, safe in self.checkpoints:
            for pgno in range(1, PAGES + 1):
                writers = [n for n in range(present) if pgno in self.wal[n]]
                if writers and writers[-1] < safe:
                    image[pgno - 1] = self.wal[writers[-1]][pgno]
        return image

    def made(self) -> tuple[Image, set[int]]:
        """What is made of the snapshot, and the pages written to it."""
        image, written = self.snapshot(), set[int]()
        for transaction in self.wal[: self.asked]:
            written |= set(transaction)
            for pgno, value in transaction.items():
                image[pgno - 1] = value
        return image, written

    def is_mixed(self) -> bool:
        """What the code says."""
        image, written = self.made()
        ahead = Ahead(lambda pgno: page(image[pgno - 1]), PAGES, written)
        for transaction in self.wal[self.asked :]:
            for frames in frames_of(transaction):
                ahead.add(frames)
        return ahead.is_mixed()


def page(value: int) -> bytes:
    """A page."""
    return value.to_bytes(PAGE_SIZE, "big")


def frames_of(transaction: Transaction) -> list[WalFrames]:
    """The frames of a transaction, each in a batch of its own."""
    items = list(transaction.items())
    return [
        WalFrames(
            (pgno,),
            (PAGES if number == len(items) else 0,),
            bytes(24) + page(value),
            PAGE_SIZE,
        )
        for number, (pgno, value) in enumerate(items, 1)
    ]


@st.composite
def cases(draw: st.DrawFn, values: st.SearchStrategy[int]) -> Case:
    """A WAL, and one or two checkpoints while it grew."""
    transactions = st.dictionaries(st.integers(1, PAGES), values, min_size=1)
    wal = draw(st.lists(transactions, max_size=7))
    present = sorted(draw(st.lists(st.integers(0, len(wal)), max_size=2)))
    checkpoints = [(count, draw(st.integers(0, count))) for count in present]
    return Case(wal, checkpoints, draw(st.integers(0, len(wal))))


@given(case=cases(st.integers(0, 2)))
@example(Case([{1: 0}, {1: 0}, {1: 1, 2: 1}], [(3, 3)], 1))
def test_what_is_let_pass_is_a_state(case: Case) -> None:
    """Of the transaction asked for, or of a later one that the snapshot has whole."""
    if not case.is_mixed():
        reached = max([case.asked, *(safe for _, safe in case.checkpoints)])
        states = [case.state(count) for count in range(case.asked, reached + 1)]
        assert case.made()[0] in states


@given(case=cases(st.integers(1, 10**9)))
def test_state_is_refused_only_if_it_is_none(case: Case) -> None:
    """As long as transactions do not write what is there already."""
    written = [pair for transaction in case.wal for pair in transaction.items()]
    if len(set(written)) == len(written) and case.is_mixed():
        assert case.made()[0] != case.state(case.asked)
