"""What a restore over an old copy costs on S3, in requests and in bytes on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.proxy import Proxy
from support.recording import Recording
from support.s3stores import open_store, through

from sqlitereplica.restore import restore

if TYPE_CHECKING:
    from support.servers import S3Server

pytestmark = pytest.mark.s3

PAGES = 4000
SHARE = 0.01


@pytest.fixture(scope="module")
def made(
    s3_server: S3Server, bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Recording]:
    """16 MB that cannot be compressed; the second of three transactions changes 1 %.

    There is a snapshot of the second state with page checksums; the third adds a row.
    """
    url = s3_server.url(bucket, "over-copy")
    folder = tmp_path_factory.mktemp("made")
    recording = Recording(folder / "source.db", open_store(s3_server, url))
    recording.commit(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)",
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {PAGES})"
        " INSERT INTO t(b) SELECT randomblob(3500) FROM n",
    )
    every = round(1 / SHARE)
    recording.commit(f"UPDATE t SET b = randomblob(3500) WHERE id % {every} = 7")
    recording.publish(9, 1, 2)
    recording.publish_sums(2)
    recording.store.delete(recording.store.list_level(0))
    recording.commit("INSERT INTO t(b) VALUES (1)")
    yield recording
    recording.close()


def test_one_percent_that_changed_costs_two_percent(
    s3_server: S3Server, bucket: str, proxy: Proxy, made: Recording, tmp_path: Path
) -> None:
    """Page checksums, page index and the pages: a request for each place that changed."""
    target = tmp_path / "app.db"
    target.write_bytes(made.images[1])
    store = through(proxy, s3_server, bucket, "over-copy")
    result = restore(store, target, if_exists="replace")
    assert target.read_bytes() == made.images[3]
    whole = len(made.images[3])
    assert result.bytes_fetched < 0.02 * whole
    assert result.bytes_fetched <= proxy.answered < 0.03 * whole
    # The listing, two headers, page checksums, an increment, the index.
    assert len(proxy.requests) <= 6 + PAGES * SHARE + 4
    assert all(line.startswith("GET ") for line in proxy.requests)
    assert result.pages_reused > 0.98 * PAGES


def test_copy_of_the_last_restore_costs_what_came_since(
    s3_server: S3Server, bucket: str, proxy: Proxy, made: Recording, tmp_path: Path
) -> None:
    """Two listings, a header, the file; and once it is the state only the first three."""
    target = tmp_path / "app.db"
    store = through(proxy, s3_server, bucket, "over-copy")
    restore(store, target, txid=2)
    proxy.requests.clear()
    result = restore(store, target, if_exists="replace")
    assert target.read_bytes() == made.images[3]
    assert len(proxy.requests) == 4
    assert result.bytes_fetched < 3 * 4096 + 1000
    proxy.requests.clear()
    result = restore(store, target, if_exists="replace")
    assert (result.reason, len(proxy.requests)) == ("unchanged", 3)
