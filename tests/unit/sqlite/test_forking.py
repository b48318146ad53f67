"""Calls into SQLite and forks exclude each other; calls do not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.lifetime import await_true

from sqlitereplica.sqlite import forking
from sqlitereplica.sqlite.forking import Calling


class Caller:
    """A thread that does what it is told, one thing after the other."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)

    def __call__(self, action: Callable[[], object]) -> None:
        """Do it, and wait until it is done."""
        self._pool.submit(action).result(30)

    def begin(self, action: Callable[[], object]) -> threading.Event:
        """Do it; the event is set when it is done."""
        done = threading.Event()
        self._pool.submit(action).add_done_callback(lambda _: done.set())
        return done


def test_calls_do_not_wait_for_each_other() -> None:
    """One that waits inside SQLite keeps nobody else from it."""
    calling, first, second = Calling(), Caller(), Caller()
    first(calling.enter)
    second(calling.enter)
    second(calling.leave)
    first(calling.leave)


def test_fork_waits_for_calls_and_calls_for_the_fork() -> None:
    """Who is inside may call on; nobody else begins until the fork is done."""
    calling, first, second, forker = Calling(), Caller(), Caller(), Caller()
    first(calling.enter)
    forking = forker.begin(calling.begin_fork)
    await_true(lambda: calling._forks)
    waiting = second.begin(calling.enter)
    first(calling.enter)
    first(calling.leave)
    assert not forking.is_set() and not waiting.is_set()
    first(calling.leave)
    assert forking.wait(30)
    assert not waiting.is_set()
    forker(calling.end_fork)
    assert waiting.wait(30)


def test_fork_in_the_middle_of_a_call_does_not_wait_for_itself() -> None:
    """As when the application's own factory for connections forks."""
    calling, forker = Calling(), Caller()
    forker(calling.enter)
    forker(calling.begin_fork)
    forker(calling.end_fork)
    forker(calling.leave)


def test_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that does not end is left behind."""
    monkeypatch.setattr(forking, "_PATIENCE", 0.01)
    calling, stuck, forker = Calling(), Caller(), Caller()
    stuck(calling.enter)
    forker(calling.begin_fork)
    forker(calling.end_fork)
    stuck(calling.leave)
