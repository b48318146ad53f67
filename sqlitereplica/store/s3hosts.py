"""The host of an S3 URL as Litestream reads it (litestream.md 7.3): bucket and server in one.

``s3://bucket.localhost:9000/app`` of its first steps with MinIO, and the hosts that some
providers show for a bucket. Anything else is the name of a bucket at Amazon, or at the
endpoint that is given beside the URL. (``s3://bucket.server:9000``, which Litestream takes
as well, may be meant as a server and no bucket: ``location.py`` asks for the endpoint.) Pure.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["S3Host", "split_host"]


class S3Host(NamedTuple):
    """A bucket, and where it is if the host says so."""

    bucket: str
    endpoint: str | None = None
    region: str | None = None


_HOSTS = tuple(
    (re.compile(pattern), endpoint)
    for pattern, endpoint in (
        (r"(?P<bucket>.+)\.s3(?:\.(?P<region>[a-z0-9-]+))?\.amazonaws\.com", None),
        (
            r"(?P<bucket>.+)\.s3\.(?P<region>[^.]+)\.backblazeb2\.com",
            "https://s3.{region}.backblazeb2.com",
        ),
        (
            r"(?P<bucket>.+)\.(?P<region>[^.]+)\.digitaloceanspaces\.com",
            "https://{region}.digitaloceanspaces.com",
        ),
        (
            r"(?P<bucket>.+)\.s3\.(?P<region>[^.]+)\.scw\.cloud",
            "https://s3.{region}.scw.cloud",
        ),
        (r"(?P<bucket>.+)\.s3\.filebase\.com", "https://s3.filebase.com"),
        (
            r"(?P<bucket>.*[^.\d].*)\.(?P<host>localhost|\d+\.\d+\.\d+\.\d+)(?P<port>:\d+)?",
            "http://{host}{port}",
        ),
    )
)


def split_host(host: str) -> S3Host:
    """Bucket and server of a host; only the bucket if it names no server."""
    for pattern, endpoint in _HOSTS:
        if match := pattern.fullmatch(host):
            parts = {key: value or "" for key, value in match.groupdict().items()}
            return S3Host(
                parts["bucket"],
                endpoint and endpoint.format(**parts),
                parts.get("region") or None,
            )
    return S3Host(host)
