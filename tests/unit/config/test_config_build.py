"""What a configuration makes of Replicators and replicas."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sqlitereplica import ConfigError, Encryption, Replica, Replicator, Retention
from sqlitereplica.config import DatabasePlan, build, parse_config, replica_of_url

NOW = datetime(2026, 11, 8, 12, tzinfo=UTC)


def plan(text: str, **env: str) -> DatabasePlan:
    """The only database of a file."""
    (found,) = build(parse_config(text, env=env), env)
    return found


def replica(text: str, **env: str) -> Replica:
    """The only replica of a database, given by its keys in flow style."""
    (found,) = plan(f"dbs: [{{path: /a.db, replica: {text}}}]", **env).replicas_at(NOW)
    return found


def options(text: str, **env: str) -> dict[str, Any]:
    """What its filesystem is given."""
    return dict(replica(text, **env).storage_options or {})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("{path: /b/a}", "/b/a"),
        ("{type: file, path: /b/a}", "/b/a"),
        ("{url: file:///b/a}", "/b/a"),
        ("{url: s3://b/a/c}", "s3://b/a/c"),
        ("{type: s3, bucket: b, path: /a/}", "s3://b/a"),
        ("{type: s3, bucket: b}", "s3://b"),
        ("{type: memory, path: /x}", "memory:///x"),
    ],
)
def test_places(text: str, name: str) -> None:
    """By type and keys, or by URL."""
    assert replica(text).display_name == name


def test_s3_keys_become_options_of_the_filesystem() -> None:
    """Those that Litestream has."""
    keys = "access-key-id: k, secret-access-key: s, region: r, endpoint: 'h:9'"
    found = options(f"{{type: s3, bucket: b, {keys}, skip-verify: true}}")
    assert found == {
        "key": "k",
        "secret": "s",
        "endpoint_url": "https://h:9",
        "client_kwargs": {"region_name": "r", "verify": False},
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"ServerSideEncryption": "AES256"}),
        (", sse: none", None),
        (", endpoint: 'http://h'", None),
        (", endpoint: 'http://h', sse: AES256", {"ServerSideEncryption": "AES256"}),
        (", storage-class: X, sse: none", {"StorageClass": "X"}),
        (
            ", sse-kms-key-id: k",
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "k"},
        ),
    ],
)
def test_objects_are_encrypted_by_default(text: str, expected: Any) -> None:
    """At Amazon; with KMS by key; elsewhere when asked for."""
    found = options(f"{{type: s3, bucket: b{text}}}")
    assert found.get("s3_additional_kwargs") == expected


@pytest.mark.parametrize(
    ("url", "env"),
    [
        ("s3://b/a?endpoint=http://h", {}),
        ("s3://b.localhost:9000/a", {}),
        ("s3://b.nyc3.digitaloceanspaces.com/a", {}),
        ("s3://b/a", {"AWS_ENDPOINT_URL": "http://h"}),
        ("s3://b/a", {"AWS_ENDPOINT_URL_S3": "http://h"}),
    ],
)
def test_other_servers_are_not_asked_to_encrypt(url: str, env: dict[str, str]) -> None:
    """Many refuse it, wherever it is said that they are meant."""
    assert "s3_additional_kwargs" not in options(f"{{url: '{url}'}}", **env)


def test_customer_key_is_decoded(tmp_path: Path) -> None:
    """From base64, or from a file with it."""
    key = bytes(range(32))
    text = base64.b64encode(key).decode()
    (tmp_path / "key").write_text(f"{text}\n")
    for given in (
        f"sse-customer-key: '{text}'",
        f"sse-customer-key-path: {tmp_path}/key",
    ):
        found = options(f"{{type: s3, bucket: b, {given}}}")["s3_additional_kwargs"]
        assert found == {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}


def test_variables_of_litestream_give_credentials() -> None:
    """Unless AWS's own are set, which botocore finds by itself."""
    env = {"LITESTREAM_ACCESS_KEY_ID": "k", "LITESTREAM_SECRET_ACCESS_KEY": "s"}
    found = options("{url: 's3://b/a'}", **env)
    assert (found["key"], found["secret"]) == ("k", "s")
    env |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "r"}
    found = options("{url: 's3://b/a'}", **env)
    assert "key" not in found and found["client_kwargs"] == {"region_name": "r"}
    assert replica_of_url("s3://b/a", {"AWS_REGION": "q"}).storage_options == {
        "client_kwargs": {"region_name": "q"},
        "s3_additional_kwargs": {"ServerSideEncryption": "AES256"},
    }


def test_general_keys_are_inherited() -> None:
    """A key of the replica wins."""
    text = "access-key-id: k\nsecret-access-key: s\nregion: r\ndbs:\n- path: /a.db\n"
    found = plan(text + "  replicas: [{url: 's3://b/a'}, {url: 's3://b/c', region: q}]")
    first, second = (dict(r.storage_options or {}) for r in found.replicas_at(NOW))
    assert first["key"] == second["key"] == "k"
    assert first["client_kwargs"] == {"region_name": "r"}
    assert second["client_kwargs"] == {"region_name": "q"}


@pytest.mark.parametrize(
    ("text", "env", "expected"),
    [
        ("", {}, Retention(window=timedelta(days=1))),
        ("", {"LITESTREAM_RETENTION": "30d"}, Retention(window=timedelta(days=30))),
        ("snapshot: {retention: 72h}", {}, Retention(window=timedelta(days=3))),
        (
            "retention: {enabled: false}",
            {},
            Retention(window=timedelta(1), delete=False),
        ),
        (
            "retention: {window: 1d, daily: 7}\nl0-retention: 1h",
            {},
            Retention(window=timedelta(1), daily=7, fine=timedelta(hours=1)),
        ),
    ],
)
def test_retention(text: str, env: dict[str, str], expected: Retention) -> None:
    """Of the file, else of the variable, else a day."""
    found = plan(f"{text}\ndbs: [{{path: /a.db, replica: {{path: /b}}}}]", **env)
    assert found.arguments["retention"] == expected
    assert found.replicas_at(NOW)[0].retention == expected


def test_retention_of_a_database_is_that_of_its_replicas() -> None:
    """Where these say nothing themselves; it must not be cut short by the file's."""
    text = (
        "snapshot: {retention: 720h}, replicas: [{path: /b}, {path: /c, retention: 7d}]"
    )
    found = plan(f"snapshot: {{retention: 1h}}\ndbs: [{{path: /a.db, {text}}}]")
    windows = [Retention.of(r.retention).window_ms for r in found.replicas_at(NOW)]
    assert windows == [30 * 86_400_000, 7 * 86_400_000]


def test_each_replica_has_its_own_retention() -> None:
    """Several for a database, as Litestream 0.3 had."""
    text = "{path: /b, retention: 7d}, {path: /c, retention: 30d}, {path: /d}"
    found = plan(f"dbs: [{{path: /a.db, replicas: [{text}]}}]").replicas_at(NOW)
    windows = [Retention.of(r.retention).window_ms // 86_400_000 for r in found]
    assert windows == [7, 30, 1]


def test_arguments_are_those_of_a_replicator() -> None:
    """Everything that is said; the shortest sync interval of the replicas counts."""
    text = """
levels: [{interval: 10s}, {interval: 1m}]
snapshot: {interval: 2h}
validation: {interval: 6h}
shutdown-sync-timeout: 10s
dbs:
  - path: ~/a.db
    meta-path: /m
    replicas: [{path: /b, sync-interval: 100ms}, {path: /c, sync-interval: 1s}]
"""
    found = plan(text, LITESTREAM_BUFFER_SIZE="32MB")
    assert found.path == str(Path("~/a.db").expanduser())
    arguments = dict(found.arguments)
    arguments.pop("retention")
    assert arguments == {
        "sync_interval": 0.1,
        "levels": (timedelta(seconds=10), timedelta(minutes=1)),
        "snapshot_interval": timedelta(hours=2),
        "verify_interval": timedelta(hours=6),
        "stop_timeout": 10.0,
        "buffer_size": 32_000_000,
        "meta_path": "/m",
    }
    replicas = found.replicas_at(NOW)
    assert Replicator(found.path, replicas, **found.arguments).database == found.path


def test_dated_replica_changes_with_the_day() -> None:
    """And is told from an undated one by its date alone."""
    text = "{path: '/b/x-$(date +%Y-%m-%d)', retention: 7d}"
    found = plan(f"dbs: [{{path: /a.db, replica: {text}}}]")
    names = [
        r.display_name
        for day in (NOW, NOW + timedelta(1))
        for r in found.replicas_at(day)
    ]
    assert names == ["/b/x-2026-11-08", "/b/x-2026-11-09"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dbs: [{replica: {path: b}}]", "a path, or a dir"),
        ("dbs: [{path: a, dir: b, replica: {path: b}}]", "a path, or a dir"),
        ("dbs: [{dir: b, replica: {path: b}}]", "needs a pattern"),
        ("dbs: [{path: a, watch: true, replica: {path: b}}]", "belong to a dir"),
        ("dbs: [{path: a, meta-dir: m, replica: {path: b}}]", "belong to a dir"),
        (
            "dbs: [{dir: a, pattern: p, meta-path: m, replica: {path: b}}]",
            "for single databases",
        ),
        (
            "dbs: [{dir: a, pattern: p, restore-if-db-not-exists: true, replicas: []}]",
            "for single databases",
        ),
        (
            "dbs: [{dir: a, pattern: p, replica: {path: 'b/$(date +%Y)'}}]",
            "date in its path",
        ),
        ("dbs: [{dir: a, pattern: 'x/*', replica: {path: b}}]", "for file names"),
        (
            "dbs: [{dir: a, pattern: p, replica: {type: mirror, path: a/m}}]",
            "one more database",
        ),
        ("dbs: [{path: a}]", "no replica is given"),
        ("dbs: [{path: a, replica: {type: s3}}]", "needs the key 'bucket'"),
        ("dbs: [{path: a, replica: {type: nats, url: x}}]", "not supported"),
        ("dbs: [{path: a, replica: {url: x, path: y}}]", "not both"),
        ("dbs: [{path: a, replica: {type: zzz, path: y}}]", "zzz"),
        ("dbs: [{path: a, replica: {path: b, age: {}}}]", "age"),
        (
            "dbs: [{path: a, replica: {url: 's3://b', access-key-id: k}}]",
            "belong together",
        ),
        ("dbs: [{path: a, replica: {url: 's3://b', sse-customer-key: k}}]", "32 bytes"),
        (
            "dbs: [{path: a, replica: {path: x}}, {path: ./a, replica: {path: y}}]",
            "there twice",
        ),
        (
            "dbs: [{path: a, replica: {path: x}}, {path: b, replica: {path: ./x}}]",
            "the same replica",
        ),
        ("dbs: [{path: '', replica: {path: x}}]", "empty path"),
        ("dbs: [{path: a, replica: {path: x}}]\nsync-interval: 0s", "sync_interval"),
        (
            "dbs: [{path: a, replica: {path: x}}]\nlevels: [{interval: 0s}]",
            "the interval of a level",
        ),
        ("dbs: [{path: a, replica: {path: x, retention: {daily: -1}}}]", "daily=-1"),
        ("dbs: [{path: a, replica: {path: ./a}}]", "replica of itself"),
        (
            "dbs: [{path: a, replica: {path: $(date +%F), retention: {daily: 30}}}]",
            "daily does not go with that",
        ),
        (
            "dbs: [{path: a, replica: {type: sftp, host: h, path: x, host-key: k}}]",
            "host-key is not supported",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, words: str) -> None:
    """By name."""
    with pytest.raises(ConfigError) as caught:
        build(parse_config(text), {})
    assert words in str(caught.value)


def test_zero_means_off_or_at_once() -> None:
    """As in Litestream."""
    text = "validation: {interval: 0s}\nshutdown-sync-timeout: 0s\nlevels: []"
    found = plan(f"{text}\ndbs: [{{path: /a.db, replica: {{path: /b}}}}]").arguments
    assert "verify_interval" not in found
    assert (found["stop_timeout"], list(found["levels"])) == (0.0, [])


def test_one_path_on_two_servers_is_two_places() -> None:
    """Two clouds may have buckets of one name."""
    urls = "s3://b/x?endpoint=http://h", "s3://b/x", "s3://b.localhost/x"
    dbs = (
        f"{{path: /{at}.db, replica: {{url: '{url}'}}}}" for at, url in enumerate(urls)
    )
    assert len(build(parse_config(f"dbs: [{', '.join(dbs)}]"), {})) == 3


def test_secrets_are_in_no_repr() -> None:
    """Of a replica, nor of the plan."""
    text = "{type: s3, bucket: b, access-key-id: hunter1, secret-access-key: hunter2}"
    found = plan(f"dbs: [{{path: /a.db, replica: {text}}}]")
    assert "hunter" not in repr(found.replicas_at(NOW)) + repr(found)


KEY = Encryption.new_key()
RECIPIENT = Encryption.recipient(Encryption.new_identity())


def test_encryption_of_a_replica() -> None:
    """Keys come from variables, for one replica or for all of the file."""
    one = replica("{path: /b, encryption: {key: $KEY, old-keys: [$KEY]}}", KEY=KEY)
    assert one.encryption == Encryption(key=KEY, old_keys=[KEY])
    db = "dbs: [{path: /a.db, replica: {path: /b}}]"
    [other] = plan(f"encryption: {{recipients: [{RECIPIENT}]}}\n{db}").replicas_at(NOW)
    assert other.encryption == Encryption(recipients=[RECIPIENT])
    assert replica("{path: /b}").encryption is None


@pytest.mark.parametrize(
    "text",
    [
        "{path: /b, encryption: {key: $NOT_SET}}",
        "{path: /b, encryption: {recipients: [$NOT_SET]}}",
        "{path: /b, encryption: {}}",
        "{path: /b, encryption: }",
        "{path: /b, encryption: {recipients: $KEY}}",
        "{path: /b, encryption: {recipients: [$KEY]}}",
        "{type: mirror, path: /b, encryption: {key: $KEY}}",
    ],
)
def test_encryption_that_cannot_be_is_refused(text: str) -> None:
    """It is never left out for want of a key, and no message shows one."""
    with pytest.raises(ConfigError) as caught:
        replica(text, KEY=KEY)
    assert KEY[-9:] not in str(caught.value)


def test_one_database_of_a_folder() -> None:
    """Its path below the folder is added to its replicas, and to the metadata folder."""
    text = """
    dbs:
      - {dir: /data/t, pattern: "*.db", recursive: true, meta-dir: /meta,
         replica: {url: "s3://b/x?region=r"}}
    """
    (plan,) = build(parse_config(text, env={}), {})
    found = plan.below("/data/t/eu/a.db")
    assert found is not None and not found.is_folder
    assert [r.display_name for r in found.stores_at(NOW)] == ["s3://b/x/eu/a.db"]
    assert found.arguments["meta_path"] == "/meta/eu/a.db-sqlitereplica"
    for other in ("/data/t/a.txt", "/data/a.db", "/data/t/.a.db", "/data/t/.x/a.db"):
        assert plan.below(other) is None
    assert found.below("/data/t/eu/a.db") is None
