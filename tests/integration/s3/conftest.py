"""What the tests on S3 share: a bucket, a path of one's own, a proxy."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.proxy import Proxy, start_proxy
from support.s3stores import open_store

from sqlitereplica.store import LTXStore

if TYPE_CHECKING:
    from support.servers import S3Server


@pytest.fixture(scope="session")
def bucket(s3_server: S3Server) -> str:
    """A bucket for all these tests."""
    return s3_server.make_bucket()


@pytest.fixture
def path() -> str:
    """A path that no other test uses."""
    return f"some/db-{secrets.token_hex(4)}"


@pytest.fixture
def store(s3_server: S3Server, bucket: str, path: str) -> LTXStore:
    """The store as most will open it."""
    return open_store(s3_server, s3_server.url(bucket, path))


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    """Sees what goes to the server."""
    with start_proxy(s3_server.port) as proxy:
        yield proxy
