"""Where the replicas of these tests are: in a folder, and on S3."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.hosts import Place
from support.servers import S3Server


@pytest.fixture(
    params=["folder", pytest.param("s3", marks=pytest.mark.s3)], scope="module"
)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of store."""
    return str(request.param)


@pytest.fixture(scope="module")
def bucket(kind: str, request: pytest.FixtureRequest) -> str:
    """A bucket of this module; none for folders."""
    if kind == "folder":
        return ""
    server: S3Server = request.getfixturevalue("s3_server")
    return server.make_bucket()


@pytest.fixture
def place(
    kind: str, bucket: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Place:
    """Where the replica of a test is."""
    if kind == "folder":
        return Place(str(tmp_path / "replica"))
    server: S3Server = request.getfixturevalue("s3_server")
    return Place(f"s3://{bucket}/{tmp_path.name}", server.storage_options)
