"""Reading a replica on S3 in place: right, and with few requests."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.proxy import Proxy
from support.reading import masked, rows
from support.recording import Recording
from support.s3stores import through

from sqlitereplica import connect
from sqlitereplica.store import LTXStore

if TYPE_CHECKING:
    from support.servers import S3Server

pytestmark = pytest.mark.s3


def test_queries_cost_few_requests(
    s3_server: S3Server,
    proxy: Proxy,
    bucket: str,
    path: str,
    store: LTXStore,
    tmp_path: Path,
) -> None:
    """Opening is a list and a few ranges; a scan reads many pages with each."""
    recording = Recording(tmp_path / "source.db", store)
    recording.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
    recording.commit(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9000)"
        " INSERT INTO t(b) SELECT randomblob(450) FROM n"
    )
    recording.publish(9, 1, 2)
    recording.publish_sums(2)
    recording.commit("UPDATE t SET b = 1 WHERE id = 5000")
    pages = len(recording.pages(recording.txid))
    assert pages > 1000
    watched = through(proxy, s3_server, bucket, path)
    with closing(connect(watched, refresh=None)) as connection:
        opening = len(proxy.requests)
        assert opening <= 8, proxy.requests
        assert rows(connection, "SELECT b FROM t WHERE id = 5000") == [(1,)]
        point = len(proxy.requests) - opening
        assert point <= 4, proxy.requests
        assert len(rows(connection, "SELECT * FROM t")) == 9000
        scan = len(proxy.requests) - opening - point
        assert scan <= pages // 40, proxy.requests
        image = connection.serialize("main")
        assert masked(image) == masked(recording.images[-1])


def test_newer_state_costs_lists_and_one_small_file(
    s3_server: S3Server, proxy: Proxy, bucket: str, path: str, store: LTXStore,
    tmp_path: Path,
) -> None:  # fmt: skip
    """A transaction that finds a newer file fetches that one, whole, and nothing else."""
    recording = Recording(tmp_path / "source.db", store)
    recording.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
    watched = through(proxy, s3_server, bucket, path)
    with closing(connect(watched, refresh=0)) as connection:
        rows(connection, "SELECT count(*) FROM t")
        recording.commit("INSERT INTO t(b) VALUES (7)")
        before = len(proxy.requests)
        assert rows(connection, "SELECT b FROM t") == [(7,)]
        fetched = [line for line in proxy.requests[before:] if "list" not in line]
        assert len(fetched) == 1, fetched
        lists = len(proxy.requests) - before - len(fetched)
        assert 1 <= lists <= 4  # the statement is prepared anew, too
