"""Restores over an old copy from a store that fails or lies at any one of its operations."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from support.recording import Recording

from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.restore import RestoreResult, restore, ways
from sqlitereplica.store import LTXStore, RetryPolicy
from sqlitereplica.testing import Fault, FaultyFileSystem, Plan, at, since

FAULTS = [Fault.BEFORE, Fault.SHORT, Fault.EMPTY, Fault.FLIPPED, Fault.OTHER]
LAST = 5


class Case:
    """A replica of five transactions, a snapshot of the third, and an old copy."""

    def __init__(self, folder: Path) -> None:
        memory = MemoryFileSystem(skip_instance_cache=True)
        memory.store, memory.pseudo_dirs = {}, [""]
        self.fs = FaultyFileSystem(memory)
        self.made = Recording(folder / "source.db", self.open(), page_size=1024)
        row = "INSERT INTO t(b) VALUES (randomblob(900))"
        self.made.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)", *[row] * 80)
        for n in range(2, LAST + 1):
            self.made.commit(
                *[row] * 3, f"UPDATE t SET b = randomblob(900) WHERE id % 40 = {n}"
            )
        self.made.publish(9, 1, 3)
        self.made.publish_sums(3)
        self.path = folder / "app.db"
        self.old = folder / "old.db"
        restore(self.open(), self.old, txid=4)

    def open(self) -> LTXStore:
        """The replica, which is asked once for everything."""
        retry = RetryPolicy(attempts=1)
        return LTXStore.open(self.fs, path="/replica", retry=retry)

    def run(self, noted: bool, plan: Plan | None) -> RestoreResult:
        """Restore over an earlier state, noted on it or not, while things go wrong."""
        self.path.unlink(missing_ok=True)
        if noted:
            shutil.copy2(self.old, self.path)
        else:
            self.path.write_bytes(self.made.images[2])
        self.fs._count = 0
        self.fs.log.clear()
        self.fs.plan = plan
        try:
            return restore(self.open(), self.path, if_exists="replace", verify=None)
        finally:
            self.fs.heal()

    def reads(self, noted: bool) -> list[int]:
        """The numbers of the operations that read, when all goes well."""
        assert self.run(noted, None).pages_reused > 20
        operations = [record.operation for record in self.fs.log]
        return [op.number for op in operations if op.kind == "read"]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """One for all; small databases are worth a request here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ways, "REQUEST_COST", 0)
        made = Case(tmp_path_factory.mktemp("case"))
        yield made
        made.made.close()


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.lower())
def test_any_one_fault_ends_in_the_right_bytes_or_a_typed_error(
    case: Case, noted: bool, fault: Fault
) -> None:
    """Each operation in turn, alone or with all after it; an error leaves the old file."""
    reads = case.reads(noted)
    assert len(reads) >= (2 if noted else 7)
    for number in reads:
        for plan in (at(number, fault), since(number, fault)):
            try:
                result = case.run(noted, plan)
            except SQLiteReplicaError:
                assert case.path.read_bytes() == case.made.images[4 if noted else 2]
            else:
                assert result.txid == LAST
                assert case.path.read_bytes() == case.made.images[LAST]
        names = {file.name for file in case.path.parent.iterdir()}
        assert names <= {
            "app.db",
            "old.db",
            "source.db",
            "source.db-wal",
            "source.db-shm",
        }


@pytest.mark.parametrize("noted", [True, False])
def test_fault_after_the_listing_is_survived(case: Case, noted: bool) -> None:
    """What the old copy has is a help and no new way to fail."""
    for number in case.reads(noted):
        for fault in FAULTS:
            case.run(noted, at(number, fault))
            assert case.path.read_bytes() == case.made.images[LAST]
