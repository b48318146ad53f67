"""The border to foreign filesystems: their exceptions become ``StoreError`` here, once."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from sqlitereplica.errors import SQLiteReplicaError, StoreError

__all__ = [
    "http_status",
    "is_conflict",
    "is_missing_bucket",
    "is_refusal",
    "secrets_in",
    "surrounding",
    "translated",
]

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
_REFUSALS = frozenset(
    {
        "AccessDenied",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
"""What S3 says when it does not take the credentials, some of it with status 400."""
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
    except SQLiteReplicaError as error:
        error.__cause__ = _harmless(error.__cause__, secrets)
        raise
    except Exception as error:  # noqa: BLE001  (raised below, as ours)
        raise StoreError(
            f"{operation} {key}: {_redacted(_explain(error, key), secrets)}",
            operation=operation,
            key=key,
            transient=_is_transient(error),
            kind=_kind(error),
        ) from _harmless(error, secrets)


class _ForeignError(Exception):
    """Stands for an exception of another library whose text held a secret."""

    def __init__(self, text: str, status_code: int | None, refusal: bool) -> None:
        super().__init__(text)
        self.status_code, self.is_refusal = status_code, refusal


def _harmless(
    error: BaseException | None, secrets: Collection[str]
) -> BaseException | None:
    """The error and what led to it, or stand-ins for all of them if one shows a secret."""
    chain = list(_causes(error))
    if all(_redacted(text, secrets) == text for text in map(_shown, chain)):
        return error
    cause: BaseException | None = None
    for link in reversed(chain):
        text = f"{type(link).__name__}: {link}"
        stand_in = _ForeignError(
            _redacted(text, secrets), http_status(link), is_refusal(link)
        )
        stand_in.__cause__, stand_in.__traceback__ = cause, link.__traceback__
        cause = stand_in
    return cause


def _shown(error: BaseException) -> str:
    """All that a traceback, or a curious logger, shows of an exception."""
    return f"{error} {error!r} {getattr(error, '__notes__', '')}"


def secrets_in(options: Mapping[str, Any]) -> frozenset[str]:
    """The values among filesystem options that no message may show."""
    found: set[str] = set()
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= secrets_in(value)
        elif _SECRET_NAME.search(name) and isinstance(value, str | int):
            found.add(str(value))
    return frozenset(text for text in found if len(text) >= _SHORTEST_SECRET)


def surrounding(protocol: str) -> frozenset[str]:
    """Secrets that AWS's libraries find in the environment."""
    if protocol not in ("s3", "s3a"):
        return frozenset()
    names = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return frozenset(filter(None, (os.environ.get(name) for name in names)))


def _redacted(text: str, secrets: Collection[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) < _SHORTEST_SECRET:
            continue
        for form in (secret, quote(secret, safe=""), repr(secret)[1:-1]):
            text = text.replace(form, "***")
    text = _SECRET_PARAMETER.sub(r"\1=***", text)
    return _USER_IN_URL.sub("://***@", text)


def is_refusal(error: BaseException) -> bool:
    """True when a server, or what is known of it, says that the credentials are wrong."""
    if _s3_code(error) in _REFUSALS or http_status(error) in (401, 403):
        return True
    return any(
        isinstance(cause, PermissionError) or getattr(cause, "is_refusal", False)
        for cause in _causes(error)
    )


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


def is_conflict(error: BaseException) -> bool:
    """True when a create-only write was refused because the name is taken."""
    return isinstance(error, FileExistsError) or http_status(error) == 412


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
