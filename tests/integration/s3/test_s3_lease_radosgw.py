"""The lease on Ceph's gateway, which compares If-Match without quotes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hosts import HostProcess, Place
from support.radosgw import PACKAGES, is_installed, start_radosgw
from support.s3stores import open_store
from support.servers import S3Server

from sqlitereplica.store.lease import Record, Seen
from sqlitereplica.store.leaseobject import RefusedError

pytestmark = [pytest.mark.torture, pytest.mark.s3]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A gateway; its packages are installed if need be."""
    if not is_installed():
        command = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(command, check=True, env=environment, timeout=1200)
    # Not tmp_path: the path of a socket has to be short.
    with start_radosgw(tmp_path_factory.mktemp("rgw")) as found:
        yield found


def test_tags_are_given_without_quotes(server: S3Server) -> None:
    """With them every renewal would be refused; stale ones are refused all the same."""
    bucket = server.make_bucket()
    lease = open_store(server, server.url(bucket, "app")).lease_object()
    assert lease is not None
    assert lease.probe() is None
    assert lease.read() == Seen(None, None)
    records = [Record(epoch=n, owner="h:1", nonce=str(n)) for n in range(4)]
    first = lease.write(records[1], None)
    second = lease.write(records[2], first)
    for stale in (None, first):
        with pytest.raises(RefusedError):
            lease.write(records[3], stale)
    assert lease.read() == Seen(records[2], second)


def test_deploy_overlap_on_it(server: S3Server, tmp_path: Path) -> None:
    """A whole Replicator, and its standby."""
    place = Place(f"s3://{server.make_bucket()}/app", server.storage_options)
    old = HostProcess(tmp_path / "old", place, lease=15)
    new = HostProcess(tmp_path / "new", place, lease=15, standby=True)
    with old, new:
        old("start")
        old("open")
        old("write", 1)
        old("sync")
        new("start")
        old("write", 2)
        old("stop")
        new("wait_active", 120)
        assert new("values") == [1, 2]
        assert new("status")["lease"]["epoch"] == 2
        new("stop")
