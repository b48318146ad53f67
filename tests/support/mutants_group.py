"""Bugs in parking: ``group``."""

from __future__ import annotations

from support.mutant import Mutant

__all__ = ["GROUP_MUTANTS"]

GROUP = "tests/integration/group/test_group.py::"
SIGNATURE = "tests/unit/group/test_group_signature.py::"

GROUP_MUTANTS = (
    Mutant(
        "a signature is taken while somebody may be about to commit",
        "group/signature.py",
        "    connection.begin_write()\n",
        "    connection.begin_read()\n",
        SIGNATURE + "test_no_seal_while_somebody_writes",
    ),
    Mutant(
        "a signature counts within a tick of the clock",
        "group/signature.py",
        "    return found if settled else None\n",
        "    return found\n",
        SIGNATURE + "test_no_seal_while_the_clock_stands",
    ),
    Mutant(
        "what is found after the flush is taken for flushed",
        "group/pool.py",
        "        if signature is None or after is None or not holds(signature, after):\n",
        "        if after is None:\n",
        GROUP + "test_a_commit_behind_the_last_flush_is_not_missed",
    ),
    Mutant(
        "a database whose WAL has grown is taken for unchanged",
        "group/signature.py",
        "    return known == seen or (seen.wal_size == 0 and known[:5] == seen[:5])\n",
        "    return known[:5] == seen[:5]\n",
        SIGNATURE + "test_a_commit_changes_it_and_a_close_after_a_checkpoint_does_not",
    ),
)
