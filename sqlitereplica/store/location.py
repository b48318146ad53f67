"""From what a user writes (a URL, a folder, a filesystem) to a filesystem and a root."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from fsspec import AbstractFileSystem, filesystem, get_filesystem_class

from sqlitereplica.errors import StoreError
from sqlitereplica.store.s3hosts import S3Host, split_host
from sqlitereplica.store.translate import secrets_in, translated

__all__ = ["Location", "locate", "make_filesystem", "root_on"]


_S3_PARAMETERS = frozenset(
    {
        "concurrency",
        "endpoint",
        "forcepathstyle",
        "partsize",
        "region",
        "requirecontentmd5",
        "signpayload",
        "skipverify",
        "storageclass",
    }
)
"""Litestream's parameters, in lower case and without dashes (litestream.md 7.3). How uploads
are cut up, signed and checked is up to s3fs: those parameters change nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where a replica is. ``name`` is printable: no secrets, no query."""

    protocol: str
    root: str
    name: str
    options: Mapping[str, Any] = field(repr=False)

    def below(self, path: str | None) -> Location:
        """The place of a folder in it; itself without one."""
        path = (path or "").strip("/")
        if not path:
            return self
        root = self.root.removesuffix("/.").rstrip("/")
        name = self.name.rstrip("/")
        return replace(self, root=f"{root}/{path}", name=f"{name}/{path}")


def locate(
    url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> Location:
    """Understand a URL or folder.

    S3 URLs may carry Litestream's query parameters (``endpoint``, ``region``,
    ``forcePathStyle`` and so on; litestream.md 7.3); ``storage_options`` are fsspec's and
    win.

    Raises:
        ValueError: a URL that cannot be meant, or of a protocol that fsspec does not know.
        StoreError: the package for the protocol is missing.
    """
    text = os.fspath(url)
    options = dict(storage_options or {})
    scheme, separator, _ = text.partition("://")
    if not text:
        raise ValueError("a replica needs a URL or a folder, and this is empty")
    if not separator:
        path = os.path.abspath(os.path.expanduser(text))
        return Location(protocol="file", root=path, name=path, options=options)
    protocol = scheme.lower()
    if "::" in scheme:
        raise ValueError(f"a URL of one filesystem is needed, not a chain: {scheme}://")
    if protocol in ("file", "local"):
        return _locate_folder(text, options)
    if protocol in ("s3", "s3a"):
        return _locate_s3(text, options)
    return _locate_other(protocol, text, options)


def _locate_folder(text: str, options: dict[str, Any]) -> Location:
    parts = urlsplit(text)
    _refuse_rest(parts, "?" if parts.query else "#" if parts.fragment else "")
    path = os.path.abspath(unquote(parts.netloc + parts.path))
    return Location(protocol="file", root=path, name=path, options=options)


def _locate_other(protocol: str, text: str, options: dict[str, Any]) -> Location:
    try:
        kind = get_filesystem_class(protocol)
    except ImportError as error:
        raise _not_made(f"{protocol}://", error) from error
    except ValueError as error:
        raise ValueError(
            f"{protocol}:// is no protocol that fsspec knows: give a folder, s3://,"
            " sftp://, gs://, or install the filesystem's package"
        ) from error
    # Hosts, ports and users are in the URL for some.
    options = {**kind._get_kwargs_from_urls(text), **options}
    parts = urlsplit(text)
    name = f"{protocol}://{parts.hostname or ''}{parts.path}".rstrip("/")
    root = str(kind._strip_protocol(text)).rstrip("/")
    return Location(protocol=protocol, root=root, name=name, options=options)


def _locate_s3(text: str, options: dict[str, Any]) -> Location:
    parts = urlsplit(text)
    _refuse_rest(parts, "#" if parts.fragment else "@" if "@" in parts.netloc else "")
    bucket, prefix = parts.netloc, unquote(parts.path).strip("/")
    query = {k.lower(): v for k, v in parse_qsl(parts.query, keep_blank_values=True)}
    _apply_query(query, options)
    if "endpoint_url" not in options:
        bucket = _apply_host(split_host(bucket), options)
    if not bucket:
        raise ValueError(
            f"an S3 URL needs a bucket, as in s3://bucket/path: 's3://{parts.path}'"
        )
    if re.search(r":\d+$", bucket):
        raise ValueError(
            f"an S3 URL begins with the bucket, not with a server: give {bucket!r} as"
            " s3://bucket/path?endpoint=http://..."
        )
    root = _s3_root(f"{bucket}/{prefix}")
    name = f"s3://{bucket}/{prefix}".rstrip("/")
    return Location(protocol="s3", root=root, name=name, options=options)


def root_on(fs: AbstractFileSystem, path: str) -> str:
    """The root of a replica at a path on a filesystem that the application made."""
    if getattr(fs, "asynchronous", False):
        raise ValueError("a filesystem made with asynchronous=True cannot be used here")
    root = str(fs._strip_protocol(path)).rstrip("/")
    return _s3_root(root) if hasattr(fs, "call_s3") else root


def _s3_root(path: str) -> str:
    """Litestream's keys in a bucket without a path begin with "./" (litestream.md 2.1)."""
    bucket, _, prefix = path.partition("/")
    return f"{bucket}/{prefix or '.'}"


def _apply_query(query: Mapping[str, str], options: dict[str, Any]) -> None:
    """Add Litestream's parameters of an S3 URL to options for s3fs, which win."""
    given = {name.replace("-", ""): value for name, value in query.items()}
    if unknown := sorted(set(given) - _S3_PARAMETERS):
        raise ValueError(
            f"unknown parameters in the S3 URL: {', '.join(unknown)} (known:"
            f" {', '.join(sorted(_S3_PARAMETERS))}; the rest go in storage_options)"
        )
    if endpoint := given.get("endpoint"):
        options.setdefault("endpoint_url", _with_scheme(endpoint))
    if "region" in given:
        _default(options, "client_kwargs", region_name=given["region"])
    if _is_true(given.get("skipverify")):
        _default(options, "client_kwargs", verify=False)
    if "forcepathstyle" in given:
        _default_style(options, "path" if _is_true(given["forcepathstyle"]) else "auto")
    if "storageclass" in given:
        _default(options, "s3_additional_kwargs", StorageClass=given["storageclass"])


def _apply_host(host: S3Host, options: dict[str, Any]) -> str:
    """Add the server that the host of a URL names to options, which win; the bucket."""
    if host.region is not None:
        _default(options, "client_kwargs", region_name=host.region)
    if host.endpoint is not None:
        options["endpoint_url"] = host.endpoint
        _default_style(options, "path")
    return host.bucket


def _default_style(options: dict[str, Any], style: str) -> None:
    """How the bucket is addressed, unless the options say."""
    s3 = dict((options.get("config_kwargs") or {}).get("s3") or {})
    s3.setdefault("addressing_style", style)
    options["config_kwargs"] = {**(options.get("config_kwargs") or {}), "s3": s3}


def _default(options: dict[str, Any], group: str, **values: Any) -> None:
    options[group] = {**values, **(options.get(group) or {})}


def _is_true(text: str | None) -> bool:
    return text is not None and text.lower() in ("true", "1", "yes")


def _with_scheme(endpoint: str) -> str:
    """Litestream takes endpoints without one, too; only this machine's are plain HTTP."""
    if "://" in endpoint:
        return endpoint
    host = urlsplit(f"//{endpoint}").hostname
    local = host in ("localhost", "127.0.0.1", "::1")
    return f"{'http' if local else 'https'}://{endpoint}"


def _refuse_rest(parts: SplitResult, mark: str) -> None:
    """Refuse a part of a URL that would be dropped; the URL is not shown if secret."""
    if mark == "@":
        raise ValueError("credentials go in storage_options, not in an S3 URL")
    if mark:
        shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        raise ValueError(
            f"write {mark!r} in the path of a URL as '%{ord(mark):X}': {shown!r}"
        )


def make_filesystem(
    location: Location, credentials: Mapping[str, Any] | None = None
) -> AbstractFileSystem:
    """The fsspec filesystem; makes no request (SFTP's and some others connect).

    It is not shared with the application, which may have other settings.

    Raises:
        StoreError: a package is missing, the options are not the filesystem's, or it
            cannot connect.
    """
    # Some connect at once, and fail in ways of their own.
    options = {**location.options, **(credentials or {})}
    with translated("open", location.name, secrets_in(options)):
        try:
            if location.protocol == "s3":
                return _make_s3(options)
            options = {"skip_instance_cache": True, **options}
            return filesystem(location.protocol, **options)
        except (ImportError, ValueError, TypeError) as error:
            raise _not_made(location.name, error) from error


def _make_s3(options: dict[str, Any]) -> AbstractFileSystem:
    """An s3fs with settings of our own.

    A listing from a cache would hide files. botocore tries five times, s3fs each of that
    five times, and the store all that four times, which takes half an hour to say that a
    server does not answer: three times four is enough.
    """
    config = dict(options.get("config_kwargs") or {})
    config.setdefault("retries", {"mode": "standard", "total_max_attempts": 3})
    config.setdefault("max_pool_connections", 32)  # the 10 of botocore are few
    options["config_kwargs"] = config
    options.setdefault("use_listings_cache", False)
    options.setdefault("skip_instance_cache", True)
    from sqlitereplica.store.s3 import QuietS3FileSystem  # s3fs takes long to import

    made: AbstractFileSystem = QuietS3FileSystem(**options)
    made.retries = 1
    return made


def _not_made(name: str, error: Exception) -> StoreError:
    return StoreError(
        f"{name}: {error}",
        operation="open",
        key=name,
        transient=False,
        kind="filesystem",
    )
