"""The keys of an S3 replica as options for s3fs. Pure but for reading a key file."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlitereplica.config.schema import ReplicaKeys
from sqlitereplica.errors import ConfigError
from sqlitereplica.store.location import locate

__all__ = ["s3_options"]

_KEY_BYTES = 32
_NONE = frozenset({"none", "off", "false", ""})


def s3_options(keys: ReplicaKeys, env: Mapping[str, str], url: str) -> dict[str, Any]:
    """Options for s3fs; what is not given is left to botocore's own chain.

    Raises:
        ConfigError: keys that exclude each other, or an encryption key that is none.
    """
    aws = not keys.endpoint and _is_aws(url, env)
    options: dict[str, Any] = {}
    credentials = {
        "key": keys.access_key_id or _or_env(env, "ACCESS_KEY_ID"),
        "secret": keys.secret_access_key or _or_env(env, "SECRET_ACCESS_KEY"),
        "token": keys.session_token,
    }
    if bool(credentials["key"]) != bool(credentials["secret"]):
        raise ConfigError("access-key-id and secret-access-key belong together")
    options.update({name: value for name, value in credentials.items() if value})
    if keys.endpoint:
        options["endpoint_url"] = _with_scheme(keys.endpoint)
    client: dict[str, Any] = {}
    region = keys.region or env.get(
        "AWS_REGION"
    )  # botocore reads AWS_DEFAULT_REGION only
    if region:
        client["region_name"] = region
    if keys.skip_verify:
        client["verify"] = False
    if client:
        options["client_kwargs"] = client
    path_style = keys.force_path_style
    if path_style is None:
        path_style = bool(keys.endpoint)
    if path_style:
        options["config_kwargs"] = {"s3": {"addressing_style": "path"}}
    if extra := _with_objects(keys, aws):
        options["s3_additional_kwargs"] = extra
    return options


def _is_aws(url: str, env: Mapping[str, str]) -> bool:
    """Whether a URL leads to Amazon's servers, where objects are encrypted by default."""
    if env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL"):
        return False  # botocore goes there
    try:
        return "endpoint_url" not in locate(url).options
    except ValueError:
        return False  # what is wrong with it says who uses it


def _or_env(env: Mapping[str, str], name: str) -> str | None:
    """Litestream's variable, where the AWS one is not set: that is botocore's to find."""
    return None if env.get(f"AWS_{name}") else env.get(f"LITESTREAM_{name}")


def _with_objects(keys: ReplicaKeys, aws: bool) -> dict[str, str | bytes]:
    """What is said with every object: its encryption and its storage class."""
    extra: dict[str, str | bytes] = {}
    customer_key = _customer_key(keys)
    if customer_key and keys.sse_kms_key_id:
        raise ConfigError("sse-customer-key and sse-kms-key-id exclude each other")
    if customer_key:
        extra["SSECustomerAlgorithm"] = keys.sse_customer_algorithm or "AES256"
        extra["SSECustomerKey"] = customer_key
    elif keys.sse_kms_key_id:
        extra["ServerSideEncryption"] = "aws:kms"
        extra["SSEKMSKeyId"] = keys.sse_kms_key_id
    elif (sse := _sse(keys, aws)) is not None:
        extra["ServerSideEncryption"] = sse
    if keys.storage_class:
        extra["StorageClass"] = keys.storage_class
    return extra


def _sse(keys: ReplicaKeys, aws: bool) -> str | None:
    """On by default at AWS; elsewhere when asked for, since many servers refuse it."""
    if keys.sse is None:
        return "AES256" if aws else None
    return None if keys.sse.lower() in _NONE else keys.sse


def _customer_key(keys: ReplicaKeys) -> bytes | None:
    """The key of SSE-C, raw as botocore wants it, from base64 of 32 bytes."""
    text: str | None = keys.sse_customer_key
    if keys.sse_customer_key_path:
        if text:
            raise ConfigError(
                "give sse-customer-key or sse-customer-key-path, not both"
            )
        try:
            text = Path(keys.sse_customer_key_path).expanduser().read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"sse-customer-key-path: {error}") from error
    if not text:
        return None
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigError("sse-customer-key is not the base64 of 32 bytes")
    if keys.endpoint and not _is_safe(_with_scheme(keys.endpoint)):
        raise ConfigError("sse-customer-key needs an endpoint with https://")
    return key


def _is_safe(endpoint: str) -> bool:
    return endpoint.startswith("https://") or _is_local(endpoint.split("://", 1)[1])


def _is_local(host: str) -> bool:
    return host.startswith(("localhost", "127.0.0.1", "[::1]"))


def _with_scheme(endpoint: str) -> str:
    """Litestream takes endpoints without one, too; only this machine's are plain HTTP."""
    if "://" in endpoint:
        return endpoint
    return f"{'http' if _is_local(endpoint) else 'https'}://{endpoint}"
