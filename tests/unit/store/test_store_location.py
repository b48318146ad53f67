"""From URLs and folders to filesystems, roots and printable names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sqlitereplica.errors import StoreError
from sqlitereplica.store import LTXStore, Replica
from sqlitereplica.store.location import Location, locate, make_filesystem


def test_folder_is_made_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A plain path is a folder; ``~`` is the user's home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert locate("backups/app").root == str(tmp_path / "backups" / "app")
    assert locate("~/app").root == str(tmp_path / "home" / "app")
    assert locate(tmp_path).root == str(tmp_path)
    assert locate(tmp_path).name == str(tmp_path)


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("file:///a/b", "/a/b"),
        ("file:///a%20b/c%3Fd", "/a b/c?d"),
        ("local:///a/b/", "/a/b"),
        ("FILE:///a/../b", "/b"),
    ],
)
def test_file_url_is_a_folder(url: str, root: str) -> None:
    """``file://`` URLs are paths, percent-decoded."""
    assert locate(url).root == os.path.abspath(root)
    assert locate(url).protocol == "file"


@pytest.mark.parametrize(
    ("url", "root", "name"),
    [
        ("s3://b/a/c", "b/a/c", "s3://b/a/c"),
        ("s3://b/a/", "b/a", "s3://b/a"),
        ("s3://b", "b/.", "s3://b"),
        ("s3://b/", "b/.", "s3://b"),
        ("s3a://b/a?endpoint=http://x:1&region=r", "b/a", "s3://b/a"),
        ("s3://arn:aws:s3:us-west-2:1:accesspoint/n/k",) * 2
        + ("s3://arn:aws:s3:us-west-2:1:accesspoint/n/k",),
    ],
)
def test_s3_url_gives_bucket_and_path(url: str, root: str, name: str) -> None:
    """A bucket with no path has Litestream's root, ``.``."""
    found = locate(url)
    assert (found.root, found.name) == (root.removeprefix("s3://"), name)


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("endpoint=http://h:9000", {"endpoint_url": "http://h:9000"}),
        ("endpoint=minio.example.com", {"endpoint_url": "https://minio.example.com"}),
        ("endpoint=localhost:9000", {"endpoint_url": "http://localhost:9000"}),
        ("region=eu-west-1", {"client_kwargs": {"region_name": "eu-west-1"}}),
        ("skipVerify=true", {"client_kwargs": {"verify": False}}),
        ("skip-verify=false", {}),
        (
            "forcePathStyle=true",
            {"config_kwargs": {"s3": {"addressing_style": "path"}}},
        ),
        (
            "force-path-style=TRUE",
            {"config_kwargs": {"s3": {"addressing_style": "path"}}},
        ),
        (
            "storage-class=STANDARD_IA",
            {"s3_additional_kwargs": {"StorageClass": "STANDARD_IA"}},
        ),
        ("partSize=5MB&concurrency=2&signPayload=true&requireContentMD5=false", {}),
    ],
)
def test_query_of_litestream_becomes_options(
    query: str, options: dict[str, Any]
) -> None:
    """Parameters are those of Litestream's URLs, in both spellings."""
    assert locate(f"s3://b/a?{query}").options == options


@pytest.mark.parametrize(
    ("host", "bucket", "endpoint", "region"),
    [
        ("b.localhost:9000", "b", "http://localhost:9000", None),
        ("b.c.localhost", "b.c", "http://localhost", None),
        ("b.127.0.0.1:9000", "b", "http://127.0.0.1:9000", None),
        ("b.s3.eu-west-1.amazonaws.com", "b", None, "eu-west-1"),
        ("b.s3.amazonaws.com", "b", None, None),
        (
            "b.nyc3.digitaloceanspaces.com",
            "b",
            "https://nyc3.digitaloceanspaces.com",
            "nyc3",
        ),
        (
            "b.s3.us-west-000.backblazeb2.com",
            "b",
            "https://s3.us-west-000.backblazeb2.com",
            "us-west-000",
        ),
        ("b.s3.fr-par.scw.cloud", "b", "https://s3.fr-par.scw.cloud", "fr-par"),
        ("b.s3.filebase.com", "b", "https://s3.filebase.com", None),
        ("my.bucket", "my.bucket", None, None),
    ],
)
def test_hosts_of_litestreams_urls_name_bucket_and_server(
    host: str, bucket: str, endpoint: str | None, region: str | None
) -> None:
    """As its own guides write them."""
    found = locate(f"s3://{host}/a")
    assert (found.root, found.name) == (f"{bucket}/a", f"s3://{bucket}/a")
    options = dict(found.options)
    assert options.pop("endpoint_url", None) == endpoint
    assert options.pop("client_kwargs", {}).get("region_name") == region
    assert bool(options) == bool(endpoint)  # path style, where there is an endpoint


def test_host_is_a_bucket_where_the_endpoint_is_given() -> None:
    """Then nothing is read into its name."""
    given = {"endpoint_url": "http://mine"}
    assert locate("s3://b.localhost/a", given).root == "b.localhost/a"
    query = "endpoint=http://mine"
    assert locate(f"s3://b.nyc3.digitaloceanspaces.com/a?{query}").options == given


def test_options_win_over_the_query() -> None:
    """What is passed explicitly is not replaced by what is in the URL."""
    given = {
        "endpoint_url": "http://mine",
        "client_kwargs": {"region_name": "mine", "verify": "ca.pem"},
        "config_kwargs": {"s3": {"addressing_style": "virtual"}, "read_timeout": 1},
    }
    query = "endpoint=http://x&region=x&forcePathStyle=true&skipVerify=true"
    assert locate(f"s3://b/a?{query}", given).options == given


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3:///path",
        "s3://key:secret-secret@bucket/path",
        "s3://bucket/path#part",
        "s3://bucket/path?unknown=1",
        "s3://localhost:9000/bucket/path",
        "s3://127.0.0.1:9000/bucket/path",
        "s3://minio.example.com:9000/bucket/path",
        "file:///a?b",
        "simplecache::s3://bucket/path",
        "nosuchprotocol://x/y",
    ],
)
def test_url_that_cannot_be_meant_is_refused(url: str) -> None:
    """At once, when the replica is named, and without showing secrets."""
    with pytest.raises(ValueError) as caught:
        Replica(url)
    assert "secret-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "path", "root"),
    [
        ("s3://b", "x/y", "b/x/y"),
        ("s3://b/a", "/x/", "b/a/x"),
        ("file:///a", "x", "/a/x"),
        ("memory://a", "x", "/a/x"),
        ("memory://a", "", "/a"),
    ],
)
def test_path_goes_below_the_url(url: str, path: str, root: str) -> None:
    """``path`` extends a URL."""
    assert locate(url).below(path).root == root


def test_missing_package_is_named() -> None:
    """A known protocol whose package is not installed says which that is."""
    with pytest.raises(StoreError, match="gcsfs") as caught:
        LTXStore.open("gs://bucket/path")
    assert (caught.value.kind, caught.value.transient) == ("filesystem", False)


@pytest.mark.parametrize("options", [{"no_such_option": 1}, {"fo": "/nonexistent"}])
def test_filesystem_that_cannot_be_made_is_an_error_of_the_library(
    options: dict[str, Any],
) -> None:
    """Misspelt options, and failures of those that look at something at once."""
    location = Location(protocol="zip", root="x", name="zip://x", options=options)
    with pytest.raises(StoreError, match="zip://x") as caught:
        make_filesystem(location)
    assert caught.value.operation == "open"


def test_own_s3_client_has_settings_of_its_own() -> None:
    """It caches nothing, tries again by one rule only, and is not the application's."""
    options = {"key": "abcdefgh", "secret": "ijklmnop"}
    theirs = fsspec.filesystem("s3", **options)
    ours = make_filesystem(locate("s3://b/a", options))
    assert ours is not theirs
    assert fsspec.filesystem("s3", **options) is theirs
    assert (ours.retries, theirs.retries) == (1, 5)
    ours.dircache["x"] = []
    assert "x" not in ours.dircache
    assert ours.config_kwargs["max_pool_connections"] == 32


def test_filesystem_needs_a_path_and_no_options() -> None:
    """A filesystem comes with its options; the path says where the replica is."""
    fs = MemoryFileSystem()
    for wrong in ({}, {"path": "a", "storage_options": {"key": "x"}}):
        with pytest.raises(ValueError):
            Replica(fs, **wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            LTXStore.open(fs, **wrong)  # type: ignore[arg-type]


def test_asynchronous_filesystem_is_refused() -> None:
    """One that only works inside a coroutine cannot be used by threads."""
    fs = fsspec.filesystem("s3", asynchronous=True, skip_instance_cache=True)
    with pytest.raises(ValueError, match="asynchronous"):
        LTXStore.open(fs, path="bucket/app")


def test_s3_filesystem_without_a_path_has_the_root_of_the_url() -> None:
    """The same bucket is the same replica, however it is named."""
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    assert LTXStore.open(fs, path="bucket")._root == "bucket/."
    assert LTXStore.open("s3://bucket")._root == "bucket/."


def test_names_show_no_secrets() -> None:
    """Names, representations: without user, password, query and options."""
    options = {"key": "ACCESSKEY1", "secret": "SECRET12345"}
    replica = Replica("s3://b/a?region=x", storage_options=options)
    store = replica.open()
    for text in (repr(replica), replica.display_name, store.name, repr(store)):
        assert "SECRET" not in text and "ACCESSKEY" not in text and "?" not in text
    assert replica.display_name == store.name == "s3://b/a"
    assert locate("ftp://user:password1@host/a/b").name == "ftp://host/a/b"
