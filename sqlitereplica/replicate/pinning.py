"""One pin in every replica, or in none."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeAlias

from sqlitereplica.errors import NotRestorableError, SQLiteReplicaError
from sqlitereplica.store import LTXStore, Pin, Replica
from sqlitereplica.store.pins import delete_pin, put_pin

__all__ = ["pin_everywhere"]

_Made: TypeAlias = tuple[LTXStore, Pin, bool]
_Failed: TypeAlias = tuple[LTXStore, SQLiteReplicaError]


class _Worker(Protocol):
    acked: int
    txid: int


def pin_everywhere(
    name: str, replicas: Sequence[Replica], workers: Sequence[_Worker]
) -> tuple[Pin, ...]:
    """Pin in each replica what its worker holds as durable; return the pins in order.

    If one fails, the pins that were made in the others are taken away again, so that the
    name is free for another try. Notes on the error say what else failed.

    Raises:
        NotRestorableError: A worker has confirmed nothing yet: there is no database.
        SQLiteReplicaError: As ``Replica.pin``, of the first that failed.
        ValueError: The name cannot be one, or there is no replica that has a history.
    """
    if not replicas:
        raise ValueError("there is nothing to pin: a Mirror holds one state only")
    for replica, worker in zip(replicas, workers, strict=True):
        # The replica may hold an older database; that is not what was asked for.
        if not worker.acked:
            raise NotRestorableError(
                f"{replica.display_name}: there is nothing to pin, since there is no"
                " database yet",
                kind="empty",
            )
    txids = [worker.txid for worker in workers]
    stores = [replica.open() for replica in replicas]
    made: list[_Made] = []
    failed: list[_Failed] = []
    with ThreadPoolExecutor(len(stores), thread_name_prefix="pin") as pool:
        waiting = [
            pool.submit(put_pin, store, name, txid)
            for store, txid in zip(stores, txids, strict=True)
        ]
    for store, future in zip(stores, waiting, strict=True):
        try:
            made.append((store, *future.result()))
        except SQLiteReplicaError as error:
            failed.append((store, error))
    if not failed:
        return tuple(pin for _, pin, _ in made)
    _undo(name, made, failed)
    raise failed[0][1]


def _undo(name: str, made: Sequence[_Made], failed: Sequence[_Failed]) -> None:
    """Take the new pins away, and note on the first error all that went wrong."""
    store, error = failed[0]
    error.add_note(f"in {store.name}")
    for other, why in failed[1:]:
        error.add_note(f"{other.name}: {why}")
    for other, _, is_new in made:
        if is_new:
            _take_away(other, name, error)


def _take_away(store: LTXStore, name: str, error: SQLiteReplicaError) -> None:
    try:
        delete_pin(store, name)
    except SQLiteReplicaError as failure:
        error.add_note(f"{store.name} keeps the pin {name!r}: {failure}")
