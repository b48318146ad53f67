"""Fleet jobs on Dask: a cluster of processes, over S3 and a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.fleets import MEMBERS, deadly, image, members, plant, unlucky

from sqlitereplica import Encryption, EncryptionError, Replica
from sqlitereplica.fleet import (
    JobLostError,
    compact_all,
    find_replicas,
    restore_all,
    verify_all,
)

if TYPE_CHECKING:
    from support.servers import S3Server

# Warnings of Dask's own are not ours to mend.
pytestmark = [pytest.mark.timeout(240), pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the cluster writes to."""
    return tmp_path_factory.mktemp("dask")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Executor]:
    """Two worker processes, on ports of their own. A job may kill one of them."""
    import dask
    from distributed import Client, LocalCluster

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            processes=True,
            dashboard_address=None,
            local_directory=str(folder),
            env={"UNLUCKY_FOLDER": str(folder / "unlucky")},
        ) as made,
        Client(made) as client,
    ):
        yield client.get_executor()


@pytest.mark.s3
def test_fleet_on_s3_is_compacted_verified_and_restored(
    cluster: Executor, s3_server: S3Server, tmp_path: Path
) -> None:
    """Where the work is done the replicas are opened anew; errors come back as they were."""
    key = Encryption(key=Encryption.new_key())
    top = Replica(
        s3_server.url(s3_server.make_bucket(), "tenants"),
        storage_options=s3_server.storage_options,
    )
    members(top)
    sealed = Replica(
        top.url, path="x/sealed", storage_options=top.storage_options, encryption=key
    )
    plant(sealed)

    compacted = list(compact_all(find_replicas(top), executor=cluster))
    assert len(compacted) == MEMBERS + 1
    errors = [o.error for o in compacted if not o.ok]
    assert [(type(e), getattr(e, "kind", "")) for e in errors] == [
        (EncryptionError, "no-key")
    ]
    assert sorted(o.get().files for o in compacted if o.ok) == [4] * MEMBERS

    verified = list(verify_all(find_replicas(top), executor=cluster, window=3))
    assert sum(o.ok for o in verified) == MEMBERS
    assert all(o.get().files == 9 for o in verified if o.ok)

    into = str(tmp_path / "{path}.db")
    found = list(restore_all([*find_replicas(top), sealed], into, executor=cluster))
    assert len(found) == MEMBERS + 2 and sum(o.ok for o in found) == MEMBERS
    for number in range(MEMBERS):
        assert (tmp_path / f"db-{number}.db").read_bytes() == image()
    alone = restore_all([sealed], into, executor=cluster)
    assert [o.get().txid for o in alone] == [5]


def test_equal_jobs_are_done_each_time(cluster: Executor, tmp_path: Path) -> None:
    """Dask would take the answer of the first for that of the second."""
    replicas = members(tmp_path, 1)
    first = verify_all(replicas * 3, executor=cluster)
    assert [o.get().files for o in first] == [5, 5, 5]
    os.unlink(next((tmp_path / "db-0" / "ltx" / "0").iterdir()))
    assert [o.get().files for o in verify_all(replicas, executor=cluster)] == [4]


def test_killed_worker_is_replaced_and_its_jobs_are_done(
    cluster: Executor, folder: Path, tmp_path: Path
) -> None:
    """By Dask: whoever asks sees nothing of it."""
    first = Replica(tmp_path / "db-0", credentials=unlucky)
    good = members(tmp_path)
    outcomes = list(verify_all([first, *good], executor=cluster))
    assert (folder / "unlucky").is_dir()
    assert len(outcomes) == MEMBERS + 1 and all(o.ok for o in outcomes)


def test_job_that_kills_every_worker_is_given_up(
    cluster: Executor, tmp_path: Path
) -> None:
    """It is told as lost. Dask suspects those beside it, too: done over, they succeed."""
    fatal = Replica(tmp_path / "db-0", credentials=deadly)
    outcomes = list(verify_all([fatal, *members(tmp_path)], executor=cluster))
    assert len(outcomes) == MEMBERS + 1
    lost = {o.replica: o.error for o in outcomes if not o.ok}
    assert fatal in lost
    for error in lost.values():
        assert isinstance(error, JobLostError) and error.kind == "lost"
        assert type(error.__cause__).__name__ == "KilledWorker"
    over = verify_all([r for r in lost if r != fatal], executor=cluster)
    assert all(o.ok for o in over)
