"""A followed file against a model of pages, with a failure at any call."""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from support.pagemodel import (
    PAGE_SIZE,
    History,
    State,
    checksum,
    histories,
    overlay,
    state_after,
)
from support.plain_killed import STEPS
from support.plainfiles import open_file

from sqlitereplica.restore.held import (
    Goal,
    Held,
    HeldFile,
    as_plain,
    cookie_of,
    head_of,
)
from sqlitereplica.restore.pages import Gathered

pytestmark = pytest.mark.property


class InjectedError(OSError):
    """What a call raises."""


@pytest.fixture(scope="module")
def first_page(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Page 1 of a database without tables, so that SQLite takes any others for unused."""
    path = tmp_path_factory.mktemp("first") / "empty.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"pragma page_size={PAGE_SIZE}")
        db.execute("pragma user_version=1")
    return path.read_bytes()[:PAGE_SIZE]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the files of each example."""
    return tmp_path_factory.mktemp("model")


def with_first(history: History, first_page: bytes) -> History:
    """The same history with a page 1 that SQLite reads, another one in each state."""
    return [
        (size, pages | {1: first_page[:60] + bytes([0, 0, 0, at]) + first_page[64:]})
        for at, (size, pages) in enumerate(history)
    ]


def goal_of(state: State, txid: int) -> Goal:
    """What a file is to become."""
    return Goal(
        txid=txid,
        timestamp=txid,
        page_size=PAGE_SIZE,
        commit=len(state),
        checksum=checksum(state),
    )


def content(state: State, held: Held) -> bytes:
    """The bytes that the file must have."""
    first = as_plain(state[0], held.commit, held.counter, held.cookie)
    return first + b"".join(state[1:])


def begin(path: Path, state: State) -> None:
    """A file that holds a state."""
    for suffix in ("", "-journal", "-journal.tmp"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    goal = goal_of(state, 1)
    held = Held(
        txid=1,
        timestamp=1,
        page_size=PAGE_SIZE,
        commit=goal.commit,
        checksum=goal.checksum,
        counter=1,
        head=head_of(state[0]),
        cookie=cookie_of(state[0]),
    )
    path.write_bytes(content(state, held))
    notes = path.with_name(f".{path.name}.held")
    notes.unlink(missing_ok=True)
    HeldFile(notes).note(held)


def failing_at(step: int, patched: pytest.MonkeyPatch) -> None:
    """Have the Nth call that writes fail, before or after it was made."""
    count = itertools.count(1)

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            if next(count) == step:
                raise InjectedError("before")
            result = call(*arguments, **options)
            if next(count) == step:
                raise InjectedError("after")
            return result

        return run

    for name in STEPS:
        if name != "open":  # a descriptor would be lost
            patched.setattr(os, name, wrap(getattr(os, name)))


@settings(max_examples=100)
@given(
    history=histories(), batches=st.lists(st.integers(1, 3), min_size=9), data=st.data()
)
def test_file_is_the_model_whatever_fails(
    history: History,
    batches: list[int],
    data: st.DataObject,
    first_page: bytes,
    place: Path,
) -> None:
    """Each batch makes exactly the next state, or leaves exactly the one before."""
    history = with_first(history, first_page)
    path, at = place / "f.db", 1
    begin(path, state_after(history, at))
    file = open_file(path)
    for batch in batches:
        end = min(len(history), at + batch)
        if end == at:
            break
        state = state_after(history, end)
        changed = overlay({}, history[at:end])
        with Gathered(PAGE_SIZE, folder=str(place), memory=2 * PAGE_SIZE) as pages:
            pages.add(sorted(changed.items()), len(state))
            with pytest.MonkeyPatch.context() as patched:
                failing_at(data.draw(st.integers(1, 60)), patched)
                try:
                    file.apply(pages, goal_of(state, end))
                except InjectedError as error:
                    event(f"failed {error}")
            held = file.held
            assert held is not None
            assert held.txid in (at, end)
            assert path.read_bytes() == content(state_after(history, held.txid), held)
            file.close()  # reading the file here has dropped its locks
            file = open_file(path)
            assert file.held == held
            if held.txid == at:
                file.apply(pages, goal_of(state, end))
        at = end
    assert file.held is not None
    expected = content(state_after(history, at), file.held)
    file.close()
    assert path.read_bytes() == expected
