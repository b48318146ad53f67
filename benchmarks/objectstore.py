"""An S3 server on this machine, behind a proxy that counts requests and may delay them.

The server and the proxy are those of the tests.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

_TESTS = str(Path(__file__).parents[1] / "tests")
if _TESTS not in sys.path:
    sys.path.append(_TESTS)

from support.proxy import Proxy  # noqa: E402
from support.servers import start_s3_server  # noqa: E402

from sqlitereplica.ltx import parse_filename  # noqa: E402
from sqlitereplica.store import LTXStore  # noqa: E402

if TYPE_CHECKING:
    from support.servers import S3Server


class _Slow(Proxy):
    """Lets every request wait; those on other connections do not wait for it."""

    delay = 0.0

    def saw(self, line: str) -> None:
        super().saw(line)
        time.sleep(self.delay)


class ObjectStore:
    """A bucket; URLs lead through the proxy."""

    def __init__(self, server: S3Server, proxy: _Slow) -> None:
        self._server, self._proxy = server, proxy
        self._bucket = server.make_bucket("bench")

    def url(self, path: str) -> str:
        """Of a replica in the bucket."""
        return replace(self._server, port=self._proxy.port).url(self._bucket, path)

    @property
    def requests(self) -> int:
        """Made so far."""
        return len(self._proxy.requests)

    @property
    def puts(self) -> int:
        """Uploads made so far."""
        return sum(line.startswith("PUT ") for line in self._proxy.requests)

    @contextmanager
    def delayed(self, seconds: float) -> Iterator[None]:
        """Every request takes that much longer."""
        self._proxy.delay = seconds
        try:
            yield
        finally:
            self._proxy.delay = 0.0

    def upload(self, replica: Path, path: str) -> None:
        """Copy a replica from a folder."""
        store = LTXStore.open(self._server.url(self._bucket, path))
        for file in sorted(replica.glob("ltx/[0-9]/*.ltx")):
            txids = parse_filename(file.name)
            assert txids is not None
            level, now = int(file.parent.name), time.time_ns() // 1_000_000
            store.put(level, *txids, file, timestamp=now)


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """Run one; processes started meanwhile find its credentials in their environment."""
    with start_s3_server(folder) as server:
        os.environ.update(server.environment)
        os.environ.pop("AWS_CA_BUNDLE", None)
        proxy = _Slow(server.port)
        thread = Thread(target=proxy.serve, daemon=True)
        thread.start()
        try:
            yield ObjectStore(server, proxy)
        finally:
            proxy.close()
            thread.join()
            for name in server.environment:
                del os.environ[name]
