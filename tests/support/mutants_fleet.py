"""Bugs in jobs on many replicas."""

from __future__ import annotations

from support.mutant import Mutant

__all__ = ["FLEET_MUTANTS"]

COMPACTION = "tests/integration/fleet/test_fleet_compaction.py::"

FLEET_MUTANTS = (
    Mutant(
        "compaction without a database deletes what it merged",
        "fleet/compacting.py",
        "                compact_level(self._shop, level, self._shop.swiftly)\n",
        "                compact_level(self._shop, level, self._shop.swiftly)\n"
        "                self._store.delete(self._store.list_level(level - 1))\n",
        COMPACTION + "test_every_level_is_made_of_the_one_below_and_nothing_is_deleted",
    ),
    Mutant(
        "the replica of another that holds the lease is compacted",
        "fleet/compacting.py",
        "if record is not None and not record.released:",
        "if record is None:",
        COMPACTION + "test_holder_of_a_lease_is_left_alone",
    ),
    Mutant(
        "retention of a fleet goes by the times of the store",
        "fleet/compacting.py",
        "self._store.list_all(accurate=True)",
        "self._store.list_all()",
        COMPACTION + "test_retention_goes_by_the_times_in_the_files",
    ),
    Mutant(
        "two replicas are restored to one path",
        "fleet/jobs.py",
        "        if path in self._taken:",
        "        if not path:",
        "tests/integration/fleet/test_fleet.py::"
        "test_no_two_replicas_are_restored_to_one_path",
    ),
)
