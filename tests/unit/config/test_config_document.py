"""Files to values: types, lines in errors, hostile texts."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlitereplica import ConfigError
from sqlitereplica.config import parse_config, read_config
from sqlitereplica.config.schema import Config, RetentionConfig

# Every key of litestream.md section 7, as a Litestream 0.5 file has them.
FULL = """
addr: ":9090"
mcp-addr: ":3001"
socket: {enabled: true, path: /run/l.sock, permissions: "0660"}
levels:
  - interval: 30s
  - interval: 5m
  - interval: 1h
snapshot: {interval: 24h, retention: 72h}
l0-retention: 5m
l0-retention-check-interval: 15s
retention: {enabled: true}
verify-compaction: true
validation: {interval: 6h}
heartbeat-url: https://example.com/ping
heartbeat-interval: 5m
shutdown-sync-timeout: 30s
shutdown-sync-interval: 500ms
exec: sleep 1
logging: {level: debug, type: json, stderr: true, source: true}
access-key-id: AKIA
secret-access-key: "x#y"
region: eu-west-1
endpoint: http://127.0.0.1:9000
force-path-style: true
sign-payload: true
require-content-md5: false
skip-verify: false
sync-interval: 1s
max-sync-ltx-files: 10
auto-recover: true
validation-interval: 1h
storage-class: STANDARD_IA
sse-customer-algorithm: AES256
dbs:
  - path: /data/a.db
    meta-path: /data/.a
    monitor-interval: 1s
    checkpoint-interval: 1m
    busy-timeout: 1s
    min-checkpoint-page-count: 1000
    max-checkpoint-page-count: 10000
    truncate-page-n: 121359
    max-sync-wal-bytes: 64MB
    restore-if-db-not-exists: true
    snapshot: {interval: 12h}
    replica: {type: s3, bucket: b, path: a, part-size: 8MiB, concurrency: 5}
  - dir: /data/tenants
    pattern: "*.db"
    recursive: true
    watch: true
    meta-dir: /var/meta
    replicas:
      - url: s3://b/tenants
"""


def test_every_key_of_litestream_is_known() -> None:
    """Nothing of it is an unknown key, and values have their types."""
    config = parse_config(FULL)
    assert config.snapshot.retention == timedelta(days=3)
    assert [level.interval.seconds for level in config.levels or ()] == [30, 300, 3600]
    first, second = config.dbs
    assert first.restore_if_db_not_exists and first.max_sync_wal_bytes == 64_000_000
    assert first.replica is not None and first.replica.part_size == 8 << 20
    assert (second.pattern, second.watch) == ("*.db", True)
    assert second.replicas[0].url == "s3://b/tenants"
    assert config.secret_access_key == "x#y"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("dbs:\n- pth: x", 2, "unknown key 'pth': did you mean 'path'?"),
        ("adr: x", 1, "did you mean 'addr'?"),
        ("zzz: x", 1, "unknown key 'zzz'"),
        ("dbs:\n\n  - path: a\n    replica:\n      urls: x", 5, "did you mean 'url'?"),
        ("a: [", 1, "not YAML"),
        ("dbs: 3", 1, "dbs is a list"),
        ("dbs: [x]", 1, "is a mapping of keys"),
        ("- a", 1, "the file is a mapping"),
        ("addr: [a]", 1, "addr is a single value"),
        ("levels: [{}]", 1, "missing here: interval"),
        ("\nlevels:\n- interval: soon", 3, "interval='soon' is not a duration"),
        ("dbs: [{path: a, path: b}]", 1, "'path' is there twice"),
        ("buffer-size: big", 1, "buffer-size='big' is not a size"),
        ("socket: {enabled: maybe}", 1, "enabled='maybe' is not true or false"),
        ("dbs: [{truncate-page-n: x}]", 1, "is not a whole number"),
        ("addr: ${", 1, "not understood"),
        ("dbs: [{replica: {options: 3}}]", 1, "options is a mapping"),
        ("dbs: [~]", 1, "an item of dbs is empty"),
    ],
)
def test_errors_name_the_line(text: str, line: int, words: str) -> None:
    """And what is wrong there."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, name="l.yml", env={})
    assert words in str(caught.value) and caught.value.line == line
    assert str(caught.value).startswith(f"l.yml:{line}: ")


def test_lenient_warns_of_unknown_keys() -> None:
    """And reads the rest."""
    told: list[str] = []
    config = parse_config("adr: x\naddr: y", lenient=True, warn=told.append)
    assert config.addr == "y"
    assert told == ["litestream.yml:1: unknown key 'adr': did you mean 'addr'?"]


def test_variables_do_not_become_yaml() -> None:
    """A secret with signs of YAML stays what it is; types are those of the keys."""
    env = {"S": "a: b # c", "ON": "true", "T": "90s"}
    text = "secret-access-key: ${S}\naccess-key-id: 0123\nsocket: {enabled: $ON}"
    config = parse_config(f"{text}\nsync-interval: $T\nl0-retention: $UNSET", env=env)
    assert config.secret_access_key == "a: b # c" and config.access_key_id == "0123"
    assert config.socket.enabled and config.sync_interval == timedelta(seconds=90)
    assert config.l0_retention is None
    assert parse_config("addr: $S").addr == "$S"


def test_values_of_variables_are_not_shown() -> None:
    """Neither are secrets: an error goes to logs."""
    with pytest.raises(ConfigError) as caught:
        parse_config("buffer-size: ${SECRET}", env={"SECRET": "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert "its value is not a size" in str(caught.value)


def test_retention_is_a_window_or_rules() -> None:
    """Litestream's switch and ours have one key."""
    config = parse_config("retention: 7d\ndbs: [{replica: {retention: {daily: 7}}}]")
    assert config.retention == timedelta(days=7)
    assert config.dbs[0].replica is not None
    assert config.dbs[0].replica.retention == RetentionConfig(daily=7)


def test_anchors_and_merges_work() -> None:
    """As in any YAML: several databases share settings."""
    text = "dbs:\n- &a {path: a, recursive: true}\n- {<<: *a, path: b}"
    first, second = parse_config(text).dbs
    assert (first.path, second.path, second.recursive) == ("a", "b", True)


def test_empty_file_is_a_configuration() -> None:
    """With nothing in it."""
    assert parse_config("# nothing\n") == Config()


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """By its own error."""
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path / "none.yml")
    assert caught.value.kind == "unreadable" and "none.yml" in str(caught.value)
    (tmp_path / "latin.yml").write_bytes(b"addr: \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_config(tmp_path / "latin.yml")


def test_deep_and_endless_documents_are_refused() -> None:
    """Neither takes the process down."""
    with pytest.raises(ConfigError):
        parse_config("a: " + "[" * 5000)
    with pytest.raises(ConfigError):
        parse_config("dbs: &x [{replicas: *x}]")
    with pytest.raises(ConfigError, match="too deeply"):
        parse_config("&x {<<: *x}")
    with pytest.raises(ConfigError, match="too many"):
        parse_config("#" * (9 << 20))


def test_an_error_is_one_line() -> None:
    """Whatever PyYAML says."""
    with pytest.raises(ConfigError) as caught:
        parse_config("dbs: \0")
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_a_configuration_or_an_error(text: str) -> None:
    """Never anything else."""
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_config(text, env={}), Config)
