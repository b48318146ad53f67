"""Foreign errors become ours: what kind, worth another try or not, and what to do."""

from __future__ import annotations

import errno
import traceback
from urllib.parse import quote

import pytest
from aiohttp import ClientPayloadError
from aiohttp.http_exceptions import ContentLengthError
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from s3fs.errors import translate_boto_error

from sqlitereplica.errors import InvalidFileError, StoreError
from sqlitereplica.store.translate import is_refusal, secrets_in, translated


def told(error: Exception, secrets: frozenset[str] = frozenset()) -> StoreError:
    """What becomes of an error."""
    with pytest.raises(StoreError) as caught:
        with translated("put", "bucket/key", secrets):
            raise error
    cause = caught.value.__cause__
    assert cause is error or type(cause).__name__ == "_ForeignError"
    assert (caught.value.operation, caught.value.key) == ("put", "bucket/key")
    return caught.value


def s3_error(code: str, status: int) -> Exception:
    """An error as s3fs raises it."""
    answer = {
        "Error": {"Code": code, "Message": f"about {code}"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    error: Exception = translate_boto_error(ClientError(answer, "PutObject"))
    return error


@pytest.mark.parametrize(
    ("code", "status", "transient"),
    [
        ("InternalError", 500, True),
        ("SlowDown", 503, True),
        ("TooManyRequests", 429, True),
        ("RequestTimeout", 400, True),
        ("BadDigest", 400, True),
        ("ConditionalRequestConflict", 409, True),
        ("InvalidRange", 416, True),
        ("AccessDenied", 403, False),
        ("InvalidAccessKeyId", 403, False),
        ("SignatureDoesNotMatch", 403, False),
        ("NoSuchBucket", 404, False),
        ("NoSuchKey", 404, False),
        ("InvalidArgument", 400, False),
        ("MethodNotAllowed", 405, False),
        ("NotImplemented", 501, False),
    ],
)
def test_answer_of_s3_is_worth_another_try_or_not(
    code: str, status: int, transient: bool
) -> None:
    """Trouble of the server passes, trouble with the request does not."""
    assert told(s3_error(code, status)).transient is transient


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (EndpointConnectionError(endpoint_url="http://x"), True),
        (ReadTimeoutError(endpoint_url="http://x"), True),
        (OSError(errno.EIO, "?"), True),
        (OSError(errno.ENOSPC, "?"), True),
        (PermissionError(errno.EACCES, "?"), False),
        (FileNotFoundError(), False),
        (NotADirectoryError(), False),
        (NoCredentialsError(), False),
        (NotImplementedError(), False),
        (ValueError(), False),
        (TypeError(), False),
    ],
)
def test_failure_without_an_answer_is_worth_another_try_or_not(
    error: Exception, transient: bool
) -> None:
    """What the network or the disk does may pass, what the caller does wrong does not."""
    assert told(error).transient is transient


def test_body_that_ended_early_passes() -> None:
    """aiohttp says 400 of such a body, which no server has said."""
    error = ClientPayloadError("payload")
    error.__cause__ = ContentLengthError("not enough")
    assert told(error).transient is True


@pytest.mark.parametrize(
    ("error", "advice", "kind"),
    [
        (NoCredentialsError(), "AWS_ACCESS_KEY_ID", "store"),
        (s3_error("NoSuchBucket", 404), "create it first", "missing-bucket"),
        (s3_error("NoSuchKey", 404), "", "missing"),
        (s3_error("InvalidAccessKeyId", 403), "access key is not known", "store"),
        (s3_error("SignatureDoesNotMatch", 403), "secret key is wrong", "store"),
        (s3_error("RequestTimeTooSkewed", 403), "clock", "store"),
        (PermissionError(errno.EACCES, "no"), "owner and mode", "store"),
        (OSError(errno.ENOSPC, "no"), "disk is full", "store"),
        (OSError(errno.EROFS, "no"), "read-only", "store"),
        (FileNotFoundError(errno.ENOENT, "no"), "", "missing"),
        (EndpointConnectionError(endpoint_url="http://x"), "endpoint", "store"),
    ],
)
def test_message_says_what_to_do(error: Exception, advice: str, kind: str) -> None:
    """The errors of the first minute come with their cure."""
    found = told(error)
    assert advice in str(found)
    assert str(error) in str(found)
    assert found.kind == kind


def test_own_errors_pass_unchanged() -> None:
    """What is translated already is not wrapped again."""
    error = InvalidFileError("x")
    with pytest.raises(InvalidFileError) as caught:
        with translated("get", "key"):
            raise error
    assert caught.value is error


def test_secrets_are_found_wherever_they_are_in_the_options() -> None:
    """By their names; not what is harmless or too short to hide."""
    options = {
        "key": "ACCESSKEY",
        "secret": "sEcReT-1",
        "client_kwargs": {"aws_session_token": "ToKeN-22", "region_name": "us-east-1"},
        "account_key": "abcdef==",
        "sas_token": "sv=1&sig=2",
        "password": "x",
        "endpoint_url": "http://server",
        "anon": False,
    }
    assert secrets_in(options) == {
        "ACCESSKEY",
        "sEcReT-1",
        "ToKeN-22",
        "abcdef==",
        "sv=1&sig=2",
    }


@pytest.mark.parametrize(
    "text",
    [
        "denied for HIDDEN-1 there",
        "GET https://user:HIDDEN-1@host/x failed",
        "GET https://host/x?sv=1&sig=HIDDEN-2&se=3 failed",
        "https://host/?X-Amz-Signature=HIDDEN-2&X-Amz-Credential=HIDDEN-3",
        "aws_secret_access_key=HIDDEN-2",
        "https://HIDDEN-4:HIDDEN-5@host",
    ],
)
def test_message_shows_no_secret(text: str) -> None:
    """Neither those that were given nor what looks like one."""
    error = told(OSError(text), frozenset({"HIDDEN-1"}))
    assert "HIDDEN" not in str(error)
    assert "***" in str(error)
    assert "HIDDEN" not in "".join(traceback.format_exception(error))


def test_secret_anywhere_in_the_chain_is_shown_nowhere() -> None:
    """In a cause, in a note, as it stands in URLs; what is known of the error stays."""
    secret = "pa/ss+wörd='1'"
    for text in (secret, quote(secret, safe=""), repr(secret)):
        try:
            try:
                raise PermissionError(13, f"no: {text}")
            except PermissionError as cause:
                outer = RuntimeError("outer")
                outer.add_note(f"tried {text}")
                raise outer from cause
        except RuntimeError as error:
            found = told(error, frozenset({secret}))
        shown = "".join(traceback.format_exception(found))
        assert text not in shown and "ss+w" not in shown
        assert "RuntimeError: outer" in shown and "PermissionError" in shown
        assert is_refusal(s3_error("AccessDenied", 403))


def test_cause_without_a_secret_is_kept_as_it_is() -> None:
    """Whoever looks for botocore's own exception finds it."""
    error = s3_error("SlowDown", 503)
    assert told(error, frozenset({"HIDDEN-1"})).__cause__ is error


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (s3_error("ExpiredToken", 400), True),
        (s3_error("InvalidAccessKeyId", 403), True),
        (s3_error("AccessDenied", 403), True),
        (PermissionError(13, "no"), True),
        (s3_error("SlowDown", 503), False),
        (s3_error("NoSuchKey", 404), False),
        (s3_error("PreconditionFailed", 412), False),
        (ConnectionError("away"), False),
    ],
)
def test_refusal_of_credentials_is_told_from_other_failures(
    error: Exception, refused: bool
) -> None:
    """Only then are new ones asked for; also behind our own error."""
    assert is_refusal(error) is refused
    assert is_refusal(told(error)) is refused
