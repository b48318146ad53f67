"""The keys of a configuration file, as types (litestream.md section 7).

A field is a key with ``-`` for ``_``. ``None`` is "not given": what is then meant is decided
where it is used. Every key of Litestream 0.5 is here, also those without meaning for us,
which are named in ``IGNORED``; keys of our own say so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import NewType

__all__ = [
    "IGNORED",
    "NEVER_EMPTY",
    "Config",
    "DatabaseConfig",
    "EncryptionConfig",
    "LevelConfig",
    "LoggingConfig",
    "ReplicaConfig",
    "ReplicaKeys",
    "Secret",
    "Size",
    "SnapshotConfig",
    "SocketConfig",
    "ValidationConfig",
]

Size = NewType("Size", int)
"""Bytes, written as a number or as ``"8MB"`` (of 1000) or ``"8MiB"`` (of 1024)."""

Secret = NewType("Secret", str)
"""Text that no message and no repr shows."""

IGNORED = {
    "age": "refused: use encryption",
    "auto-recover": "a replica is always brought up again by a comparison",
    "busy-timeout": "nothing waits for a lock of the database",
    "checkpoint-interval": "the WAL is kept short without one",
    "concurrency": "left to the filesystem",
    "concurrent-writes": "left to the filesystem",
    "l0-retention-check-interval": "what need not stay is deleted when it is time",
    "max-checkpoint-page-count": "the WAL is kept short without one",
    "max-sync-ltx-files": "uploads are merged while a store is slow",
    "max-sync-wal-bytes": "memory is bounded by buffer-size",
    "mcp-addr": "there is no MCP server",
    "min-checkpoint-page-count": "the WAL is kept short without one",
    "monitor-interval": "commits are noticed within milliseconds",
    "part-size": "left to the filesystem",
    "require-content-md5": "left to the filesystem",
    "retention-check-interval": "what need not stay is deleted when it is time",
    "shutdown-sync-interval": "the last flush is tried until shutdown-sync-timeout",
    "sign-payload": "left to the filesystem",
    "truncate-page-n": "the WAL is kept short without one",
    "validation-interval": "use verify-interval",
    "verify-compaction": "every file that is made is verified",
}
"""Keys that are accepted and change nothing, and why."""

NEVER_EMPTY = frozenset({"encryption"})
"""Keys that, left empty, would not mean what they look like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotConfig:
    """When full snapshots are made and how long points stay."""

    interval: timedelta | None = None
    retention: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelConfig:
    """One level of compaction."""

    interval: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketConfig:
    """The control socket."""

    enabled: bool = False
    path: str = "/var/run/litestream.sock"
    permissions: str = "0600"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingConfig:
    """What is logged and how."""

    level: str | None = None
    type: str | None = None
    stderr: bool = False
    source: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationConfig:
    """How often replicas are proved."""

    interval: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionConfig:
    """Which restore points stay. ``enabled`` is Litestream's; the rest is ours."""

    enabled: bool = True
    window: timedelta | None = None
    fine: timedelta | None = None
    keep_last: int | None = None
    hourly: int | None = None
    daily: int | None = None
    weekly: int | None = None
    monthly: int | None = None
    grace: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeConfig:
    """Litestream's encryption, which it refuses itself."""

    identities: list[Secret] = field(default_factory=list, repr=False)
    recipients: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionConfig:
    """Ours: who can read a replica; as ``Encryption``."""

    recipients: list[str] = field(default_factory=list)
    identities: list[Secret] = field(default_factory=list, repr=False)
    key: Secret | None = field(default=None, repr=False)
    old_keys: list[Secret] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaKeys:
    """What a replica may say, and what the whole file may say for all of them."""

    # How, and how long.
    sync_interval: timedelta | None = None
    max_sync_ltx_files: int | None = None
    auto_recover: bool | None = None
    validation_interval: timedelta | None = None
    retention: timedelta | RetentionConfig | None = None
    retention_check_interval: timedelta | None = None
    snapshot_interval: timedelta | None = None
    age: AgeConfig | None = None
    encryption: EncryptionConfig | None = None
    # S3, and those that share its keys.
    bucket: str | None = None
    region: str | None = None
    endpoint: str | None = None
    access_key_id: Secret | None = field(default=None, repr=False)
    secret_access_key: Secret | None = field(default=None, repr=False)
    session_token: Secret | None = field(default=None, repr=False)
    force_path_style: bool | None = None
    sign_payload: bool | None = None
    require_content_md5: bool | None = None
    skip_verify: bool | None = None
    storage_class: str | None = None
    sse: str | None = None
    sse_customer_algorithm: str | None = None
    sse_customer_key: Secret | None = field(default=None, repr=False)
    sse_customer_key_path: str | None = None
    sse_kms_key_id: str | None = None
    # Azure.
    account_name: str | None = None
    account_key: Secret | None = field(default=None, repr=False)
    sas_token: Secret | None = field(default=None, repr=False)
    # SFTP.
    host: str | None = None
    user: str | None = None
    password: Secret | None = field(default=None, repr=False)
    key_path: str | None = None
    concurrent_writes: bool | None = None
    # NATS.
    jwt: Secret | None = field(default=None, repr=False)
    seed: Secret | None = field(default=None, repr=False)
    creds: str | None = None
    nkey: Secret | None = field(default=None, repr=False)
    username: str | None = None
    token: Secret | None = field(default=None, repr=False)
    tls: bool | None = None
    root_cas: list[str] | None = None
    client_cert: str | None = None
    client_key: str | None = None
    max_reconnects: int | None = None
    reconnect_wait: timedelta | None = None
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaConfig(ReplicaKeys):
    """One replica. The keys of its own are not inherited, as in Litestream."""

    type: str | None = None
    url: str | None = None
    path: str | None = None
    name: str | None = None
    part_size: Size | None = None
    concurrency: int | None = None
    host_key: str | None = None
    webdav_url: str | None = None
    webdav_username: str | None = None
    webdav_password: Secret | None = field(default=None, repr=False)
    options: dict[str, str] | None = field(default=None, repr=False)
    """Ours: options of the fsspec filesystem."""
    keep: int | None = None
    """Ours: how many files of a dated mirror stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseConfig:
    """One database, or a folder of them."""

    path: str | None = None
    dir: str | None = None
    pattern: str | None = None
    recursive: bool = False
    watch: bool = False
    meta_path: str | None = None
    meta_dir: str | None = None
    monitor_interval: timedelta | None = None
    checkpoint_interval: timedelta | None = None
    busy_timeout: timedelta | None = None
    min_checkpoint_page_count: int | None = None
    max_checkpoint_page_count: int | None = None
    truncate_page_n: int | None = None
    max_sync_wal_bytes: Size | None = None
    restore_if_db_not_exists: bool = False
    snapshot: SnapshotConfig = field(default_factory=SnapshotConfig)
    replica: ReplicaConfig | None = None
    replicas: list[ReplicaConfig] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ReplicaKeys):
    """A whole file."""

    addr: str | None = None
    mcp_addr: str | None = None
    socket: SocketConfig = field(default_factory=SocketConfig)
    levels: list[LevelConfig] | None = None
    snapshot: SnapshotConfig = field(default_factory=SnapshotConfig)
    l0_retention: timedelta | None = None
    l0_retention_check_interval: timedelta | None = None
    verify_compaction: bool = False
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    heartbeat_url: str | None = None
    heartbeat_interval: timedelta | None = None
    shutdown_sync_timeout: timedelta | None = None
    shutdown_sync_interval: timedelta | None = None
    exec: str | None = None
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    buffer_size: Size | None = None
    """Ours: memory for captured pages; LITESTREAM_BUFFER_SIZE."""
    spool_size: Size | None = None
    """Ours: disk for what waits while a store is away."""
    verify_interval: timedelta | None = None
    """Ours: how often each replica is restored and checked."""
    dbs: list[DatabaseConfig] = field(default_factory=list)
