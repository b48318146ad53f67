"""The contract of stores on a real S3 server, and answers that it seldom gives."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
import s3fs
from support.meddler import Meddler, start_meddler
from support.servers import S3Server

from sqlitereplica.errors import AnotherWriterError, StoreError
from sqlitereplica.store import LTXStore
from sqlitereplica.testing import LTXStoreTests
from sqlitereplica.testing.contract import example_file

pytestmark = pytest.mark.s3


@pytest.fixture(scope="module")
def users(s3_server: S3Server) -> s3fs.S3FileSystem:
    """A filesystem that the application made, with its defaults."""
    return s3fs.S3FileSystem(**s3_server.storage_options)


class TestS3Store(LTXStoreTests):
    """The contract of stores, on S3."""

    @pytest.fixture
    def store(self, s3_server: S3Server, bucket: str, path: str) -> LTXStore:
        """A store at a path of its own."""
        options = s3_server.storage_options
        return LTXStore.open(f"s3://{bucket}/{path}", storage_options=options)


class TestS3StoreOnUsersFilesystem(LTXStoreTests):
    """The contract on a filesystem that the application made, which caches listings."""

    @pytest.fixture
    def store(self, users: s3fs.S3FileSystem, bucket: str, path: str) -> LTXStore:
        """A store on it."""
        return LTXStore.open(users, path=f"{bucket}/{path}")


@pytest.fixture
def meddler(s3_server: S3Server) -> Iterator[Meddler]:
    """A proxy before the server."""
    with start_meddler(s3_server.port) as running:
        yield running


@pytest.fixture
def watched(meddler: Meddler, s3_server: S3Server, bucket: str, path: str) -> LTXStore:
    """A store behind the proxy, which does not wait between tries."""
    options = {**s3_server.storage_options, "endpoint_url": meddler.endpoint}
    return LTXStore.open(
        f"s3://{bucket}/{path}", storage_options=options, sleep=lambda _: None
    )


def test_body_cut_in_the_middle_is_read_again(
    watched: LTXStore, meddler: Meddler
) -> None:
    """A read whose connection ends early gives all bytes in the end."""
    data = secrets.token_bytes(300_000)
    info = watched.put(0, 1, 1, data, timestamp=1)
    meddler.cut_bodies = 3
    with watched.open_file(info) as file:
        assert file.read(-1) == data


def test_server_without_conditional_writes_is_asked_first(
    watched: LTXStore, meddler: Meddler, caplog: pytest.LogCaptureFixture
) -> None:
    """Where If-None-Match is answered 501 names are looked up, and nothing is lost."""
    meddler.refused["PUT"] = 501
    info = watched.put(0, 1, 1, example_file(1), timestamp=1)
    assert watched.get(info) == example_file(1)
    assert "no conditional writes" in caplog.text
    with pytest.raises(AnotherWriterError):
        watched.put(0, 1, 1, example_file(1, fill=1), timestamp=1)
    assert watched.get(info) == example_file(1)


def test_conflicting_requests_are_tried_again(
    watched: LTXStore, meddler: Meddler
) -> None:
    """409 means that somebody writes the name just now, not that it is taken."""
    meddler.refused["PUT"] = 409
    with pytest.raises(StoreError) as caught:
        watched.put(0, 1, 1, example_file(1), timestamp=1)
    assert not isinstance(caught.value, AnotherWriterError)
    assert (caught.value.transient, watched.requests["put"]) == (True, 4)
    meddler.refused.clear()
    watched.put(0, 1, 1, example_file(1), timestamp=1)


def test_many_files_are_deleted_by_one_request(
    watched: LTXStore, meddler: Meddler
) -> None:
    """A thousand to a request; missing ones are fine."""
    infos = [watched.put(0, n, n, example_file(n), timestamp=n) for n in range(1, 6)]
    meddler.requests.clear()
    watched.delete([*infos, *infos[:2]])
    assert [method for method, _ in meddler.requests] == ["POST"]
    assert watched.list_all() == []


def test_files_are_deleted_one_by_one_where_batches_are_refused(
    watched: LTXStore, meddler: Meddler
) -> None:
    """Some servers do not take the request for many."""
    infos = [watched.put(0, n, n, example_file(n), timestamp=n) for n in range(1, 6)]
    meddler.refused["POST"] = 501
    watched.delete(infos)
    assert watched.list_all() == []


def test_deletion_that_is_refused_is_an_error(
    watched: LTXStore, meddler: Meddler
) -> None:
    """The answer to a batch is 200 even if nothing could be deleted."""
    infos = [watched.put(0, n, n, example_file(n), timestamp=n) for n in (1, 2)]
    meddler.bodies["POST"] = (
        b"<DeleteResult><Error><Key>x</Key><Code>AccessDenied</Code>"
        b"<Message>no</Message></Error></DeleteResult>"
    )
    with pytest.raises(StoreError, match="AccessDenied") as caught:
        watched.delete(infos)
    assert (caught.value.operation, caught.value.transient) == ("delete", False)


def test_empty_replica_is_found_by_one_request(
    watched: LTXStore, meddler: Meddler
) -> None:
    """Neither the folder nor the level is looked for when nothing is listed."""
    assert watched.list_all() == watched.list_level(3) == []
    assert [method for method, _ in meddler.requests] == ["GET", "GET"]


def test_replicas_below_are_not_even_listed(
    watched: LTXStore, meddler: Meddler, s3_server: S3Server, bucket: str, path: str
) -> None:
    """A replica at the top of a tree of others does not pay for them."""
    watched.list_all()
    watched.list_level(3)
    prefixes = [
        parse_qs(urlsplit(line).query)["prefix"] for _, line in meddler.requests
    ]
    assert prefixes == [[f"{path}/000"], [f"{path}/0003/"]]


def test_parameters_of_the_url_reach_the_server(
    s3_server: S3Server, bucket: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL as in Litestream's configuration works as it is."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    more = "&part-size=8MB&concurrency=3&sign-payload=true&storageClass=STANDARD_IA"
    store = LTXStore.open(s3_server.url(bucket, path) + more)
    info = store.put(0, 1, 1, example_file(1), timestamp=1)
    behind = s3_server.filesystem()
    head = behind.call_s3("head_object", Bucket=bucket, Key=f"{path}/0000/{info.name}")
    assert head["StorageClass"] == "STANDARD_IA"
