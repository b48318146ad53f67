"""Encrypted replicas in use: replication, restores, readers; and those without the keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.commandline import CommandLine
from support.litestream import Litestream

from sqlitereplica import (
    Encryption,
    EncryptionError,
    Follower,
    InvalidFileError,
    Replica,
    Replicator,
    Retention,
    StoreError,
    connect,
    restore,
    restore_points,
    verify,
)
from sqlitereplica.testing import SteppedReplicator

if TYPE_CHECKING:
    from support.servers import S3Server

IDENTITY = Encryption.new_identity()
RECIPIENT = Encryption.recipient(IDENTITY)
WRITER = Encryption(recipients=[RECIPIENT])
PAIR = Encryption(recipients=[RECIPIENT], identities=[IDENTITY])
MARKER = "the marker that nobody may see"
PATIENCE = 60.0


@pytest.fixture
def app(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The application's own connection to a WAL database."""
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as app:
        app.execute("pragma journal_mode=wal")
        app.execute("create table note(id integer primary key, text)")
        yield app


def write(app: sqlite3.Connection, count: int = 1) -> None:
    """Commit notes, of about 3 KiB each."""
    for _ in range(count):
        app.execute("insert into note(text) values (?)", (MARKER * 100,))


def count_in(path: Path) -> int:
    """How many notes a database has."""
    with closing(sqlite3.connect(path)) as connection:
        [(found,)] = connection.execute("select count(*) from note")
        assert isinstance(found, int)
        return found


def files_in(folder: Path) -> dict[Path, bytes]:
    """All files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_history_of_an_encrypted_replica_is_tended(
    app: sqlite3.Connection, tmp_path: Path
) -> None:
    """Compaction, snapshots and retention go on, each state restores, nothing shows."""
    replica = Replica(tmp_path / "r", encryption=PAIR)
    retention = Retention(window="2d", fine="1h", daily=3, weekly=0, monthly=0)
    done: set[str] = set()
    with SteppedReplicator(
        tmp_path / "a.db", replica, retention=retention
    ) as replicator:
        for _ in range(12):
            write(app, 3)
            replicator.sync()
            done.update(replicator.advance("12h"))
        replica.pin("kept")
        write(app)
        replicator.sync()
        replicator.advance("1m")
    assert {"compact", "snapshot", "retention"} <= done
    report = verify(replica)
    assert report.ok, str(report)
    points = restore_points(replica)
    assert len({point.files for point in points}) > 1
    restore(replica, tmp_path / "out.db")
    restore(replica, tmp_path / "kept.db", at="kept")
    assert (count_in(tmp_path / "out.db"), count_in(tmp_path / "kept.db")) == (37, 36)
    stored = files_in(tmp_path / "r")
    assert {"ltx", "pins", "sums"} <= {
        p.relative_to(tmp_path / "r").parts[0] for p in stored
    }
    for path, data in stored.items():
        assert data.startswith(b"sqlitereplica-e1"), path
        assert MARKER.encode()[:12] not in data and b"SQLite format" not in data


def check_readers(app: sqlite3.Connection, replica: Replica, folder: Path) -> None:
    """Replicate, read in place and follow."""
    with Replicator(folder / "a.db", replicas=[replica]) as replicator:
        write(app, 200)
        replicator.sync(timeout=PATIENCE)
        replicator.snapshot(timeout=PATIENCE)
        with closing(connect(replica)) as view:
            assert view.execute("select count(*) from note").get == 200
            some = "select length(text) from note where id = 77"
            assert view.execute(some).get == len(MARKER) * 100
        with Follower(replica, folder / "copy.db", interval=0.05) as follower:
            follower.wait(timeout=PATIENCE)
            write(app)
            replicator.sync(timeout=PATIENCE)
            follower.wait(timeout=PATIENCE)
            assert count_in(folder / "copy.db") == 201
    # A new life continues: what it reads tells it that nothing is to be sent.
    before = replica.open().list_level(0)
    with Replicator(folder / "a.db", replicas=[replica]) as replicator:
        replicator.sync(timeout=PATIENCE)
    assert replica.open().list_level(0) == before
    restore(replica, folder / "out.db")
    assert count_in(folder / "out.db") == 201


def test_encrypted_folder_is_read_in_place_and_followed(
    app: sqlite3.Connection, tmp_path: Path
) -> None:
    """connect(), Follower and a restart work on a folder with a shared key."""
    keys = Encryption(key=Encryption.new_key())
    check_readers(app, Replica(tmp_path / "r", encryption=keys), tmp_path)


@pytest.mark.s3
def test_encrypted_bucket_is_read_in_place_and_followed(
    app: sqlite3.Connection, tmp_path: Path, s3_server: S3Server
) -> None:
    """The same in a bucket with a key pair; no object there shows anything."""
    bucket = s3_server.make_bucket()
    replica = Replica(
        s3_server.url(bucket, "notes"),
        storage_options=s3_server.storage_options,
        encryption=PAIR,
    )
    check_readers(app, replica, tmp_path)
    fs = s3_server.filesystem()
    objects = [name for name in fs.find(bucket) if not name.endswith("lock.json")]
    assert objects
    for name in objects:
        data = fs.cat_file(name)
        assert data.startswith(b"sqlitereplica-e1")
        assert MARKER.encode()[:12] not in data


def test_host_that_cannot_read_replicates(
    app: sqlite3.Connection, tmp_path: Path
) -> None:
    """With recipients only: each start sends all of it anew, and the owner restores."""
    writer = Replica(tmp_path / "r", encryption=WRITER)
    owner = replace(writer, encryption=Encryption(identities=[IDENTITY]))
    for life in (1, 2, 3):
        with Replicator(tmp_path / "a.db", replicas=[writer]) as replicator:
            write(app)
            replicator.sync(timeout=PATIENCE)
            write(app)
            replicator.sync(timeout=PATIENCE)
            replicator.snapshot(timeout=PATIENCE)
            [status] = replicator.status().replicas
            assert (status.error, status.history_error) == (None, None)
        out = tmp_path / f"{life}.db"
        restore(owner, out)
        assert count_in(out) == 2 * life
    assert verify(owner).ok
    with pytest.raises(EncryptionError) as caught:
        restore(writer, tmp_path / "out.db")
    assert caught.value.kind == "no-key"


def test_history_of_a_host_that_cannot_read_is_not_compacted(
    app: sqlite3.Connection, tmp_path: Path
) -> None:
    """Snapshots come from the source and retention works; no level above 0 is made."""
    writer = Replica(tmp_path / "r", encryption=WRITER)
    retention = Retention(window="2d", fine="1h", daily=0, weekly=0, monthly=0)
    done: set[str] = set()
    with SteppedReplicator(
        tmp_path / "a.db", writer, retention=retention
    ) as replicator:
        for _ in range(10):
            write(app)
            replicator.sync()
            done.update(replicator.advance("12h"))
    assert {"snapshot", "retention"} <= done
    assert {file.level for file in writer.open().list_all()} == {0, 9}
    owner = replace(writer, encryption=PAIR)
    assert verify(owner).ok
    restore(owner, tmp_path / "out.db")
    assert count_in(tmp_path / "out.db") == 10


def test_lease_is_the_only_plain_object(
    app: sqlite3.Connection, tmp_path: Path
) -> None:
    """Hosts take turns on an encrypted replica; the next one goes on where it ended."""
    replica = Replica(tmp_path / "r", encryption=PAIR)
    for epoch in (1, 2):
        with Replicator(
            tmp_path / "a.db", replicas=[replica], lease=True
        ) as replicator:
            write(app)
            replicator.sync(timeout=PATIENCE)
            lease = replicator.status().lease
            assert lease is not None and lease.epoch == epoch
    plain = {
        path.relative_to(tmp_path / "r").parts[0]
        for path, data in files_in(tmp_path / "r").items()
        if not data.startswith(b"sqlitereplica-e1")
    }
    assert plain == {"lock"}
    restore(replica, tmp_path / "out.db")
    assert count_in(tmp_path / "out.db") == 2


def test_lease_needs_a_replica_that_can_be_read(tmp_path: Path) -> None:
    """Who cannot read cannot tell whether another host went on."""
    with pytest.raises(ValueError, match="lease needs replicas"):
        Replicator(
            tmp_path / "a.db",
            replicas=[Replica(tmp_path / "r", encryption=WRITER)],
            lease=True,
        )


@pytest.mark.parametrize(
    ("written", "read", "kind"),
    [
        (PAIR, None, "no-key"),
        (PAIR, Encryption(key=Encryption.new_key()), "wrong-key"),
        (PAIR, Encryption(identities=[Encryption.new_identity()]), "wrong-key"),
        (None, PAIR, "not-encrypted"),
    ],
)
def test_wrong_or_missing_keys_are_errors_and_change_nothing(
    app: sqlite3.Connection,
    tmp_path: Path,
    written: Encryption | None,
    read: Encryption | None,
    kind: str,
) -> None:
    """Restores, views, verifications and a Replicator say so; no object comes or goes."""
    right = Replica(tmp_path / "r", encryption=written)
    with Replicator(tmp_path / "a.db", replicas=[right]) as replicator:
        write(app)
        replicator.sync(timeout=PATIENCE)
    wrong = replace(right, encryption=read)
    before = files_in(tmp_path / "r")
    with pytest.raises(EncryptionError) as caught:
        restore(wrong, tmp_path / "out.db")
    assert caught.value.kind == kind
    with pytest.raises(StoreError) as refused:
        connect(wrong).execute("select * from note")
    assert refused.value.kind == kind
    assert not verify(wrong).ok
    write(app)
    with pytest.raises(EncryptionError) as caught:
        with Replicator(tmp_path / "a.db", replicas=[wrong]) as replicator:
            replicator.sync(timeout=PATIENCE)
    assert caught.value.kind == kind
    assert files_in(tmp_path / "r") == before
    assert not (tmp_path / "out.db").exists()


def test_tampering_is_found(app: sqlite3.Connection, tmp_path: Path) -> None:
    """A flipped bit is a finding of verify() with its own kind of error."""
    replica = Replica(tmp_path / "r", encryption=PAIR)
    with Replicator(tmp_path / "a.db", replicas=[replica]) as replicator:
        write(app)
        replicator.sync(timeout=PATIENCE)
    for path in (tmp_path / "r").rglob("*.ltx"):
        data = bytearray(path.read_bytes())
        data[700] ^= 1
        path.write_bytes(data)
    report = verify(replica)
    assert not report.ok and "was changed" in str(report)
    with pytest.raises(InvalidFileError) as caught:
        restore(replica, tmp_path / "out.db")
    assert caught.value.kind == "tampered"


@pytest.mark.interop
def test_litestream_refuses_an_encrypted_replica(
    app: sqlite3.Connection, tmp_path: Path, litestream: Litestream
) -> None:
    """The real program fails and leaves no database."""
    replica = Replica(tmp_path / "r", encryption=PAIR)
    with Replicator(tmp_path / "a.db", replicas=[replica]) as replicator:
        write(app)
        replicator.sync(timeout=PATIENCE)
    url = (tmp_path / "r").as_uri()
    with pytest.raises(AssertionError, match="failed"):
        litestream.run("restore", "-o", tmp_path / "out.db", url)
    assert not (tmp_path / "out.db").exists()


def test_command_line_restores_an_encrypted_replica(
    app: sqlite3.Connection, tmp_path: Path
) -> None:
    """With the key in a variable that the configuration names, and not without it."""
    key = Encryption.new_key()
    replica = Replica(tmp_path / "r", encryption=Encryption(key=key))
    with Replicator(tmp_path / "a.db", replicas=[replica]) as replicator:
        write(app, 3)
        replicator.sync(timeout=PATIENCE)
    (tmp_path / "c.yml").write_text(
        f"dbs: [{{path: {tmp_path / 'a.db'}, replica: {{path: {tmp_path / 'r'},"
        " encryption: {key: $REPLICA_KEY}}}]"
    )
    arguments = ("restore", "-config", "c.yml", "-o", str(tmp_path / "out.db"))
    CommandLine(tmp_path, {"REPLICA_KEY": key})(*arguments, str(tmp_path / "a.db"))
    assert count_in(tmp_path / "out.db") == 3
    other = CommandLine(tmp_path, {"REPLICA_KEY": Encryption.new_key()})
    arguments = (*arguments[:-1], str(tmp_path / "other.db"))
    done = other(*arguments, str(tmp_path / "a.db"), code=1)
    assert "is encrypted for" in done.stderr
    assert key[-20:] not in done.stderr
