"""What a ``with`` block raises, and what goes wrong at its end."""

from __future__ import annotations

import asyncio

import pytest

from sqlitereplica.errors import SQLiteReplicaError, StoreError
from sqlitereplica.lifetime import Lifetime


class Failing(Lifetime):
    """Cannot be stopped without an error."""

    def __init__(self, failure: Exception) -> None:
        self.is_started, self.failure = False, failure

    def start(self) -> None:
        self.is_started = True

    def stop(self) -> None:
        self.is_started = False
        raise self.failure


FAILURES = [StoreError("away", operation="put"), OSError(28, "no space left")]


async def use(what: Failing) -> None:
    """A block of asyncio that fails by itself."""
    async with what:
        assert what.is_started
        raise KeyError("mine")


@pytest.mark.parametrize("failure", FAILURES)
def test_error_of_the_end_is_raised_where_there_is_no_other(failure: Exception) -> None:
    """What was not flushed is not passed over."""
    what = Failing(failure)
    with pytest.raises((SQLiteReplicaError, OSError)) as caught, what:
        assert what.is_started
    assert caught.value is failure
    assert not what.is_started


@pytest.mark.parametrize("failure", FAILURES)
def test_error_of_the_block_comes_first(failure: Exception) -> None:
    """The other is told with it, also in asyncio."""
    what = Failing(failure)
    with pytest.raises(KeyError) as caught, what:
        raise KeyError("mine")
    assert caught.value.__notes__ == [f"while stopping: {failure}"]
    with pytest.raises(KeyError) as caught:
        asyncio.run(use(what))
    assert caught.value.__notes__ == [f"while stopping: {failure}"]
    assert not what.is_started
