"""What is asked of S3, how it is addressed, and what is said when it fails."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import s3fs
from support.proxy import Proxy, start_proxy
from support.s3stores import NAME, file, open_store, put, through

from sqlitereplica.errors import AnotherWriterError, StoreError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.store import LTXStore, Replica

if TYPE_CHECKING:
    from support.servers import S3Server

pytestmark = pytest.mark.s3


# -- requests --------------------------------------------------------------------------


def test_opening_a_store_makes_no_request(
    s3_server: S3Server, proxy: Proxy, bucket: str, path: str
) -> None:
    """An application starts whether its storage is there or not."""
    store = through(proxy, s3_server, bucket, path)
    assert proxy.requests == []
    store.list_level(0)
    assert proxy.requests != []


def test_files_of_litestream_03_cost_one_request_to_list(
    s3_server: S3Server, proxy: Proxy, bucket: str, path: str
) -> None:
    """Whether there are some, as in few replicas, or none."""
    store = through(proxy, s3_server, bucket, path)
    fs = s3_server.filesystem()
    for count in range(3):
        proxy.requests.clear()
        assert len(store.list_generations()) == count
        assert len(proxy.requests) == 1
        key = f"{bucket}/{path}/generations/{count:016x}/snapshots/00000000"
        fs.pipe_file(f"{key}.snapshot.lz4", b"x")


def test_files_of_litestream_03_in_a_bucket_without_a_path(
    s3_server: S3Server, proxy: Proxy
) -> None:
    """Their keys have no "./" before them: there is one in 0.5 only."""
    bucket = s3_server.make_bucket()
    store = through(proxy, s3_server, bucket, "")
    key = f"generations/{0:016x}/snapshots/00000000.snapshot.lz4"
    s3_server.filesystem().pipe_file(f"{bucket}/{key}", b"content")
    [file] = store.list_generations()
    assert store.get_generation_file(file) == b"content"
    assert proxy.requests[-1] == f"GET /{bucket}/{key}"


def test_listing_is_asked_for_every_time(
    s3_server: S3Server, proxy: Proxy, store: LTXStore, bucket: str, path: str
) -> None:
    """No cache: what another process put is there, what it deleted is not."""
    other = through(proxy, s3_server, bucket, path)
    for txid in (1, 2):
        info = put(store, txid)
        assert len(other.list_level(0)) == len(other.list_all()) == txid
    store.delete([info])
    assert len(other.list_level(0)) == len(other.list_all()) == 1


def test_listing_is_fresh_even_through_a_caching_filesystem(
    s3_server: S3Server, store: LTXStore, bucket: str, path: str
) -> None:
    """A filesystem that the application hands in may have its cache switched on."""
    fs = s3fs.S3FileSystem(**s3_server.storage_options, use_listings_cache=True)
    cached = LTXStore.open(fs, path=f"{bucket}/{path}")
    for txid in (1, 2):
        info = put(store, txid)
        assert len(cached.list_level(0)) == len(cached.list_all()) == txid
    store.delete([info])
    with pytest.raises(StoreError):
        cached.get(info)
    put(store, 2, fill=2)
    with pytest.raises(AnotherWriterError):
        put(cached, 2)


def test_level_is_asked_for_from_a_txid_on(
    s3_server: S3Server, proxy: Proxy, bucket: str, path: str
) -> None:
    """What a follower asks every second does not grow with the files behind it."""
    store = through(proxy, s3_server, bucket, path)
    for txid in (1, 2, 3):
        put(store, txid)
    proxy.requests.clear()
    before = proxy.answered
    everything = store.list_level(0)
    whole = proxy.answered - before
    before = proxy.answered
    assert store.list_level(0, min_txid=3) == everything[2:]
    assert len(proxy.requests) == 2
    assert proxy.answered - before < whole - 200  # bytes; each file is 300


def test_common_operations_cost_one_request(
    s3_server: S3Server, proxy: Proxy, bucket: str, path: str
) -> None:
    """What is paid for by the request is asked once."""
    store = through(proxy, s3_server, bucket, path)
    costs: dict[str, Callable[[], object]] = {
        f"PUT /{bucket}/{path}/0000/{NAME}": lambda: put(store),
        f"GET /{bucket}?list-type=2&prefix={path.replace('/', '%2F')}%2F": (
            store.list_all
        ),
        f"GET /{bucket}/{path}/0000/{NAME}": lambda: store.get(FileInfo(0, 1, 1, 9, 0)),
        f"DELETE /{bucket}/{path}/0000/{NAME}": lambda: store.delete(
            [FileInfo(0, 1, 1, 9, 0)]
        ),
    }
    for line, operation in costs.items():
        proxy.requests.clear()
        operation()
        assert len(proxy.requests) == 1 and proxy.requests[0].startswith(line)


# -- how a store is named ----------------------------------------------------------------


def test_options_in_the_url_and_as_an_argument_are_the_same(
    s3_server: S3Server, bucket: str, path: str
) -> None:
    """Litestream's query, fsspec's options, or both; a ``Replica``; a filesystem."""
    plain = f"s3://{bucket}/{path}"
    secret = {"key": s3_server.key, "secret": s3_server.secret}
    region = {"client_kwargs": {"region_name": s3_server.region}}
    full = {**s3_server.storage_options, **region}
    url = s3_server.url(bucket, path)
    wrong = plain + "?endpoint=http://127.0.0.1:1&region=nowhere"
    stores = [
        LTXStore.open(url, storage_options=secret),
        LTXStore.open(plain, storage_options=full),
        LTXStore.open(wrong, storage_options=full),
        LTXStore.open(s3_server.url(bucket), path=path, storage_options=secret),
        Replica(url, storage_options=secret).open(),
        Replica(s3_server.filesystem(), path=f"{bucket}/{path}").open(),
    ]
    put(stores[0])
    assert [store.list_all() for store in stores] == [stores[0].list_all()] * len(
        stores
    )
    assert {store.name for store in stores} == {plain}


def test_special_characters_in_a_path_are_kept(
    s3_server: S3Server, bucket: str, path: str
) -> None:
    """Written percent-encoded in the URL, plain in the key, as Litestream does."""
    store = open_store(s3_server, s3_server.url(bucket, f"{path}/a%20b%23c+d%25é"))
    info = put(store)
    assert store.list_all()[0].name == info.name and store.get(info) == file()
    found = s3_server.filesystem().find(f"{bucket}/{path}")
    assert found == [f"{bucket}/{path}/a b#c+d%é/0000/{NAME}"]


def test_bucket_without_a_path_has_the_keys_of_litestream_on_the_wire(
    s3_server: S3Server, proxy: Proxy, bucket: str
) -> None:
    """``./0000/...``, sent as it is. SeaweedFS refuses that; the error says what to do."""
    store = through(proxy, s3_server, bucket, "")
    with pytest.raises(StoreError, match="give the replica one") as caught:
        put(store)
    assert not caught.value.transient
    assert proxy.requests == [f"PUT /{bucket}/./0000/{NAME}"]
    assert store.list_all() == []
    assert "prefix=.%2F000&" in proxy.requests[1]
    with pytest.raises(StoreError):
        store.get(FileInfo(0, 1, 1, 9, 0))
    assert proxy.requests[-1] == f"GET /{bucket}/./0000/{NAME}"


# -- failures --------------------------------------------------------------------------


def operations(store: LTXStore) -> dict[str, Callable[[], object]]:
    """Each kind of operation."""
    info = FileInfo(0, 1, 1, 9, 0)
    return {
        "put": lambda: put(store),
        "get": lambda: store.get(info),
        "list": store.list_all,
        "delete": lambda: store.delete([info]),
    }


@pytest.mark.parametrize("operation", ["put", "get", "list", "delete"])
@pytest.mark.parametrize(
    ("credentials", "text"),
    [
        ({"secret": "wrong"}, "the secret key is wrong"),
        ({"key": "nobody"}, "the access key is not known"),
    ],
)
def test_wrong_credentials_are_said_at_once(
    s3_server: S3Server,
    bucket: str,
    path: str,
    credentials: dict[str, str],
    text: str,
    operation: str,
) -> None:
    """They are not tried again, and no secret is in the message."""
    store = open_store(s3_server, s3_server.url(bucket, path), **credentials)
    with pytest.raises(StoreError, match=text) as caught:
        operations(store)[operation]()
    error = caught.value
    assert (error.operation, error.transient) == (operation, False)
    assert error.__cause__ is not None and "testsecret" not in str(error)
    assert store.requests == {operation: 1}


def test_missing_credentials_are_said_at_once(
    s3_server: S3Server,
    bucket: str,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """With none in the environment the error names the variables and the options."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    store = LTXStore.open(s3_server.url(bucket, path))
    with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID") as caught:
        put(store)
    assert not caught.value.transient


def test_missing_bucket_is_not_an_empty_replica(s3_server: S3Server, path: str) -> None:
    """A mistyped bucket must not look like a database without a backup."""
    store = open_store(s3_server, s3_server.url("no-such-bucket", path))
    for listing in (store.list_all, lambda: store.list_level(0)):
        with pytest.raises(StoreError, match="create it first") as caught:
            listing()
        assert caught.value.kind == "missing-bucket" and not caught.value.transient


def test_endpoint_that_is_not_there_is_transient(
    s3_server: S3Server, path: str
) -> None:
    """It may come back, so it is tried again; it does not take minutes to say so."""
    with start_proxy(1) as gone:
        endpoint = gone.endpoint
    url = s3_server.url("bucket", path).replace(s3_server.endpoint, endpoint)
    store = open_store(s3_server, url)
    begun = time.monotonic()
    with pytest.raises(StoreError, match="the endpoint does not answer") as caught:
        store.list_all()
    assert caught.value.transient and endpoint in str(caught.value)
    assert store.requests["list"] > 1
    assert time.monotonic() - begun < 60
