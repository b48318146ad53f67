"""What a thousand requests that wait for durability cost at a real server, in uploads."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.capturing import make_database
from support.lifetime import await_true
from support.proxy import Proxy
from support.servers import S3Server

from sqlitereplica import Replica, Replicator, restore

pytestmark = [pytest.mark.s3, pytest.mark.timeout(180)]

REQUESTS = 1000


class Holding(Proxy):
    """Keeps uploads on their way until they may go on."""

    def __init__(self, upstream: int) -> None:
        super().__init__(upstream)
        self.open = threading.Event()
        self.open.set()

    def saw(self, line: str) -> None:
        """A request is on its way."""
        super().saw(line)
        if line.startswith("PUT "):
            self.open.wait(120)

    @property
    def puts(self) -> int:
        """Increments uploaded so far; not snapshots, nor a request that was made again."""
        lines = {line.partition("?")[0] for line in self.requests}
        return sum(line.startswith("PUT ") and "/0000/" in line for line in lines)


@pytest.fixture
def holding(s3_server: S3Server) -> Iterator[Holding]:
    """It, in front of the server."""
    proxy = Holding(s3_server.port)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    yield proxy
    proxy.open.set()
    proxy.close()
    thread.join()


def test_thousand_requests_cost_two_uploads(
    s3_server: S3Server, bucket: str, path: str, holding: Holding, tmp_path: Path
) -> None:
    """While one upload is under way all others gather, each with a commit of its own."""
    database = tmp_path / "app.db"
    url = s3_server.url(bucket, path).replace(s3_server.endpoint, holding.endpoint)
    options = {"key": s3_server.key, "secret": s3_server.secret}
    replica = Replica(url, storage_options=options)

    async def requests(replicator: Replicator, db: sqlite3.Connection) -> None:
        async def request(number: int) -> None:
            db.execute("insert into t(v) values(?)", (number,))
            await replicator.sync_async(timeout=120)

        first = asyncio.create_task(request(0))
        await asyncio.to_thread(await_true, lambda: holding.puts > before)
        others = [asyncio.create_task(request(n)) for n in range(1, REQUESTS)]
        await asyncio.sleep(0)  # each of them has committed and waits
        holding.open.set()
        await asyncio.gather(first, *others)

    with closing(make_database(database)) as db:
        with Replicator(database, replica, sync_interval=3600) as replicator:
            replicator.sync()
            before = holding.puts
            holding.open.clear()
            asyncio.run(requests(replicator, db))
            assert holding.puts == before + 2
        restore(replica, tmp_path / "restored.db")
        assert (tmp_path / "restored.db").read_bytes() == db.serialize()
