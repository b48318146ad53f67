"""Stores on the S3 server of the tests, and small files to put."""

from __future__ import annotations

from support.proxy import Proxy
from support.servers import S3Server

from sqlitereplica.ltx import FileInfo, Header, encode
from sqlitereplica.store import LTXStore

__all__ = ["NAME", "TIME", "file", "open_store", "put", "through"]

TIME = 1_700_000_000_120
NAME = "0000000000000001-0000000000000001.ltx"


def open_store(server: S3Server, url: str, **secret: str) -> LTXStore:
    """A store that does not pause between tries."""
    options = {"key": server.key, "secret": server.secret, **secret}
    return LTXStore.open(url, storage_options=options, sleep=lambda seconds: None)


def through(proxy: Proxy, server: S3Server, bucket: str, path: str) -> LTXStore:
    """A store that goes through the proxy."""
    url = server.url(bucket, path).replace(server.endpoint, proxy.endpoint)
    return open_store(server, url)


def file(txid: int = 1, *, timestamp: int = TIME, fill: int = 1) -> bytes:
    """A small LTX file."""
    header = Header(
        page_size=512, commit=1, min_txid=txid, max_txid=txid, timestamp=timestamp
    )
    return encode(header, [(1, bytes([fill]) * 512)])


def put(store: LTXStore, txid: int = 1, level: int = 0, **what: int) -> FileInfo:
    """Put a small LTX file."""
    data = file(txid, **what)
    timestamp = what.get("timestamp", TIME)
    return store.put(level, txid, txid, data, timestamp=timestamp)
