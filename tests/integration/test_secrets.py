"""Secrets that are planted everywhere must show up nowhere."""

from __future__ import annotations

import gc
import logging
import sqlite3
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.capturing import make_database
from support.lifetime import await_true, write
from support.servers import S3Server
from support.switchable import SwitchableFileSystem

from sqlitereplica import Replica, Replicator, SQLiteReplicaError, restore, verify
from sqlitereplica.events import Event, log_event
from sqlitereplica.store.location import locate

MARK = "pl4nted"
"""Every secret of these tests has it."""


class Guarded(SwitchableFileSystem):
    """A store whose errors say more than they should."""

    protocol = "guarded"

    def __init__(self, password: str) -> None:
        super().__init__()
        self.password = password

    def fail(self, error: BaseException | None = None) -> None:
        """Raise from now on, with the secret in every part of the chain."""
        cause = ConnectionError(f"login {self.password} timed out")
        cause.add_note(f"password={self.password}")
        outer = TimeoutError(f"https://me:{self.password}@host/?token={self.password}")
        outer.__cause__ = cause
        super().fail(outer)


class Seen:
    """Everything that was said, and searches in it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.caplog = caplog
        self.events: list[Event] = []
        self.texts: list[str] = []

    def observe(self, event: Event) -> None:
        """As observer."""
        self.events.append(event)
        log_event(event)

    def error(self, error: BaseException) -> None:
        """An error that the application got."""
        self.texts += traceback.format_exception(error)
        self.texts += [repr(error), str(error), repr(vars(error))]

    def replicator(self, replicator: Replicator) -> None:
        """All that one shows of itself."""
        self.texts += [repr(replicator), repr(replicator.status())]
        self.texts.append(replicator.status().to_json().decode())

    def check(self) -> None:
        """Nothing of it has the mark."""
        for event in self.events:
            self.texts.append(repr(event))
            if event.error is not None:
                self.error(event.error)
        formatter = logging.Formatter("%(message)s")
        for record in self.caplog.records:
            self.texts += [formatter.format(record), repr(record.__dict__)]
        self.texts += [thread.name for thread in threading.enumerate()]
        self.texts += [shown(thing) for thing in ours()]
        found = [text for text in self.texts if MARK in text]
        assert found == []
        assert len(self.texts) > 20


def ours() -> Iterator[object]:
    """Every object of a class of the library that is alive."""
    for thing in gc.get_objects():
        kind = type(thing)
        if str(getattr(kind, "__module__", "")).startswith("sqlitereplica."):
            yield thing


def shown(thing: object) -> str:
    """How it shows itself; those of other tests may be half taken apart."""
    try:
        return repr(thing)
    except Exception as error:  # noqa: BLE001
        return repr(error)


@pytest.fixture
def seen(caplog: pytest.LogCaptureFixture) -> Seen:
    """It, with all levels of the log."""
    caplog.set_level(logging.DEBUG, "sqlitereplica")
    return Seen(caplog)


def tried(seen: Seen, action: Any) -> None:
    """Do something that fails; keep the error."""
    with pytest.raises((SQLiteReplicaError, ValueError)) as caught:
        action()
    seen.error(caught.value)


def test_password_of_a_filesystem_is_shown_nowhere(tmp_path: Path, seen: Seen) -> None:
    """While it works and while it fails: values, errors, causes, log, events, status."""
    fs = Guarded(password=f"{MARK}/pass=word")
    replica = Replica(fs, path="/r")
    with closing(make_database(tmp_path / "app.db")) as db:
        with Replicator(tmp_path / "app.db", replica, observer=seen.observe) as r:
            r.sync()
            seen.replicator(r)
            write(db)
            fs.fail()
            try:
                await_true(lambda: r.status().replicas[0].error)
                seen.replicator(r)
                tried(seen, lambda: r.sync(timeout=0.05))
                tried(seen, lambda: restore(replica, tmp_path / "restored.db"))
                tried(seen, lambda: verify(replica))
                seen.check()
            finally:
                fs.heal()
        meta = tmp_path / ".app.db-sqlitereplica"
        for file in filter(Path.is_file, meta.rglob("*")):
            assert MARK.encode() not in file.read_bytes()


@pytest.mark.s3
def test_credentials_of_s3_are_shown_nowhere(
    s3_server: S3Server, tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given as options, by a callable, and in the environment; refused by a real server."""
    url = s3_server.url("bucket", "app")
    options = {
        "key": f"{MARK}-key",
        "secret": f"{MARK}-secret",
        "token": f"{MARK}-token",
        "client_kwargs": {"aws_session_token": f"{MARK}-inner"},
    }
    replicas = [
        Replica(
            url, storage_options={k: options[k] for k in ("key", "secret", "token")}
        ),
        Replica(
            url, name="asked", credentials=lambda: {**options, "client_kwargs": {}}
        ),
    ]
    make_database(tmp_path / "app.db").close()
    with closing(sqlite3.connect(tmp_path / "app.db")):
        replicator = Replicator(
            tmp_path / "app.db", replicas, observer=seen.observe, stop_timeout=1
        )
        replicator.start()
        await_true(lambda: all(r.error for r in replicator.status().replicas))
        seen.replicator(replicator)
        tried(seen, lambda: replicator.sync(timeout=5))
        tried(seen, replicator.stop)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"{MARK}-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{MARK}-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"{MARK}-token")
    tried(seen, lambda: restore(url, tmp_path / "restored.db"))
    seen.check()


@pytest.mark.parametrize(
    "url",
    [
        f"s3://key:{MARK}@bucket/app",
        f"s3://bucket/app?secret={MARK}",
        f"s3://bucket/app#{MARK}",
        f"s3://:{MARK}@/app",
        f"sftp://me:{MARK}@127.0.0.1:1/app",
        f"file:///folder?password={MARK}",
    ],
)
def test_url_with_a_secret_is_shown_without_it(url: str, seen: Seen) -> None:
    """Whether it is refused at once, when it is opened, or only named."""
    try:
        replica = Replica(url)
        seen.texts += [repr(replica), replica.display_name, repr(locate(url))]
        replica.open()
    except (SQLiteReplicaError, ValueError) as error:
        seen.error(error)
    assert [text for text in seen.texts if MARK in text] == []
    assert seen.texts
