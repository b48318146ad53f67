"""The border to foreign filesystems: their exceptions become ``StoreError`` here, once."""

from __future__ import annotations

import errno
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlitereplica.errors import SQLiteReplicaError, StoreError

__all__ = ["http_status", "is_missing_bucket", "secrets_in", "translated"]

_PERMANENT_STATUS = frozenset({400, 401, 403, 404, 405, 411, 412, 501})
_TRANSIENT_CODES = frozenset(
    {"BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch"}
)
"""Codes that S3 sends with status 400 when a request was damaged or slow on its way."""
_PERMANENT_TYPES = (
    PermissionError,
    FileNotFoundError,
    NotADirectoryError,
    IsADirectoryError,
    ImportError,
    NotImplementedError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
)
_PERMANENT_NAMES = frozenset(
    {
        "NoCredentialsError",
        "NoRegionError",
        "ParamValidationError",
        "PartialCredentialsError",
        "ProfileNotFound",
    }
)
"""botocore's errors about the configuration, by name: it is not imported for them."""
_HINTS = {
    "NoCredentials": "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or"
    " pass storage_options={'key': ..., 'secret': ...}",
    "NoSuchBucket": "the bucket does not exist: create it first",
    "InvalidAccessKeyId": "the access key is not known to the server",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "ExpiredToken": "the credentials have expired",
    "Access Denied": "the credentials do not allow this: put, get and list are needed",
    "Forbidden": "the credentials are wrong or do not allow this",
    "EndpointConnectionError": "the endpoint does not answer",
}
_ERRNO_HINTS = {
    errno.EACCES: "this user may not do that: check owner and mode of the folder",
    errno.EPERM: "this user may not do that: check owner and mode of the folder",
    errno.EROFS: "the filesystem is mounted read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
}
_SECRET_NAME = re.compile(
    r"secret|token|passw|credential|\bkey\b|_key$|sas|connection_string", re.IGNORECASE
)
_SECRET_PARAMETER = re.compile(
    r"\b(sig|signature|x-amz-[a-z-]*|[a-z_]*(?:token|secret|password)[a-z_]*)=[^&\s'\"]+",
    re.IGNORECASE,
)
_USER_IN_URL = re.compile(r"://[^/\s@]+@")
_SHORTEST_SECRET = 6
"""Hiding shorter ones would hide half of every message."""
_DOT_KEY_HINT = (
    "this server may refuse keys that begin with './', as they do where an S3 URL names"
    " no path: give the replica one, as in s3://bucket/path"
)


@contextmanager
def translated(
    operation: str, key: str, secrets: Collection[str] = ()
) -> Iterator[None]:
    """Turn whatever a filesystem raises into a StoreError that says what and where.

    ``secrets`` and what looks like one do not get into its message.
    """
    try:
        yield
    except SQLiteReplicaError:
        raise
    except Exception as error:
        raise StoreError(
            f"{operation} {key}: {_redacted(_explain(error, key), secrets)}",
            operation=operation,
            key=key,
            transient=_is_transient(error),
            kind=_kind(error),
        ) from error


def secrets_in(options: Mapping[str, Any]) -> frozenset[str]:
    """The values among filesystem options that no message may show."""
    found: set[str] = set()
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= secrets_in(value)
        elif _SECRET_NAME.search(name) and len(str(value)) >= _SHORTEST_SECRET:
            found.add(str(value))
    return frozenset(found)


def _redacted(text: str, secrets: Collection[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    text = _SECRET_PARAMETER.sub(r"\1=***", text)
    return _USER_IN_URL.sub("://***@", text)


def http_status(error: BaseException | None) -> int | None:
    """HTTP status behind an exception or its causes; filesystems often lose it."""
    for cause in _causes(error):
        if type(cause).__module__ == "aiohttp.http_exceptions":
            continue  # a body that ended early calls itself 400, too
        response: Any = getattr(cause, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            names = ("status", "status_code", "code")
            values = (getattr(cause, name, None) for name in names)
            status = next((v for v in values if isinstance(v, int)), None)
        if isinstance(status, int):
            return status
    return None


def is_missing_bucket(error: BaseException) -> bool:
    """True when it is not a file that is missing but the bucket it would be in."""
    return _s3_code(error) == "NoSuchBucket"


def _s3_code(error: BaseException) -> str:
    for cause in _causes(error):
        response: Any = getattr(cause, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and what led to it, as far as that goes."""
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _kind(error: Exception) -> str:
    if is_missing_bucket(error):
        return "missing-bucket"
    return "missing" if isinstance(error, FileNotFoundError) else "store"


def _is_transient(error: Exception) -> bool:
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if _s3_code(error) in _TRANSIENT_CODES:
        return True
    status = http_status(error)
    if status is not None:
        return status not in _PERMANENT_STATUS
    if type(error).__name__ in _PERMANENT_NAMES:
        return False
    return not isinstance(error, _PERMANENT_TYPES)


def _explain(error: Exception, key: str) -> str:
    text = f"{type(error).__name__}: {error}"
    seen = f"{text} {_s3_code(error)}"
    for mark, hint in _HINTS.items():
        if mark in seen:
            return f"{hint} ({text})"
    if type(error).__module__ == "builtins" and not _s3_code(error):
        advice = _ERRNO_HINTS.get(getattr(error, "errno", None) or 0)
        if advice is not None:
            return f"{advice} ({text})"
    if "/./" in f"{key}/" and http_status(error) == 400:
        return f"{_DOT_KEY_HINT} ({text})"
    return text
