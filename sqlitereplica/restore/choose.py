"""Which of several replicas to restore from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlitereplica.errors import (
    InvalidFileError,
    NotRestorableError,
    SQLiteReplicaError,
    StoreError,
)
from sqlitereplica.restore.assemble import Wanted
from sqlitereplica.restore.backup import Backup, find_backup
from sqlitereplica.store import LTXStore, Replica

__all__ = ["Candidate", "Source", "choose", "open_store", "open_stores", "worst"]

Source: TypeAlias = str | os.PathLike[str] | Replica | LTXStore


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica that has the state asked for; ``index`` is its place in the order given."""

    index: int
    store: LTXStore
    backup: Backup


def open_stores(
    replica: Source | Sequence[Source], storage_options: Mapping[str, Any] | None
) -> list[LTXStore]:
    """Return the stores of one replica or of several.

    Raises:
        ValueError: There is none, or one cannot take the options.
    """
    if isinstance(replica, str) or not isinstance(replica, Sequence):
        return [open_store(replica, storage_options)]
    if not replica:
        raise ValueError("no replica to restore from")
    return [open_store(source, storage_options) for source in replica]


def choose(
    stores: Sequence[LTXStore], wanted: Wanted
) -> tuple[list[Candidate], dict[int, SQLiteReplicaError]]:
    """Return the replicas that can serve, the newest state first, and what others lack.

    States are compared by the time of the last file, then by their transaction; of equal
    ones the replica given first comes first.

    Raises:
        NotRestorableError: None has the state.
        StoreError: None has, and at least one could not be asked.
    """
    if len(stores) == 1:
        return [Candidate(0, stores[0], find_backup(stores[0], wanted))], {}
    with ThreadPoolExecutor(len(stores), thread_name_prefix="restore-list") as pool:
        answers = list(
            pool.map(_ask, range(len(stores)), stores, [wanted] * len(stores))
        )
    ranked, failures = [], {}
    for index, answer in enumerate(answers):
        if isinstance(answer, SQLiteReplicaError):
            failures[index] = answer
        else:
            ranked.append(answer)
    if not ranked:
        raise worst(failures, stores)
    ranked.sort(key=lambda answer: answer[0], reverse=True)
    return [candidate for _, candidate in ranked], failures


def worst(
    failures: Mapping[int, SQLiteReplicaError], stores: Sequence[LTXStore]
) -> SQLiteReplicaError:
    """Return the error to raise when no replica serves; it has notes on the others.

    It is the first one of those that say most: a replica that could not be read may
    have what another lacks, and one that lacks the state is more than an empty one.
    """
    chosen = min(failures, key=lambda index: (_weight(failures[index]), index))
    error = failures[chosen]
    for index, other in sorted(failures.items()):
        if index != chosen:
            error.add_note(f"{stores[index].name}: {other}")
    return error


def open_store(source: Source, options: Mapping[str, Any] | None) -> LTXStore:
    """Return the store of one replica; raise ValueError if it cannot take the options."""
    if not isinstance(source, Replica | LTXStore):
        return LTXStore.open(source, storage_options=options)
    if options is not None:
        raise ValueError("storage_options are for a URL: a Replica has its own")
    return source.open() if isinstance(source, Replica) else source


def _ask(
    index: int, store: LTXStore, wanted: Wanted
) -> tuple[tuple[int, int, int], Candidate] | SQLiteReplicaError:
    """Return what a replica offers and how new that is, or why it offers nothing."""
    try:
        candidate = Candidate(index, store, find_backup(store, wanted))
        timestamp, txid = candidate.backup.newness()
    except (StoreError, NotRestorableError, InvalidFileError) as error:
        return error
    return (timestamp, txid, -index), candidate


def _weight(error: SQLiteReplicaError) -> int:
    if isinstance(error, NotRestorableError):
        return 2 if error.kind == "empty" else 1
    return 0
