"""What people type wrong on the first day: each is told in a line that helps."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from support.commandline import CommandLine, count, eventually, make_app

from sqlitereplica.cli.heartbeat import Heartbeat
from sqlitereplica.cli.units import Unit
from sqlitereplica.config import build, parse_config
from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.replicate import ReplicaStatus, Status


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """A folder with a database and a replica, and no configuration anywhere."""
    make_app(tmp_path / "app.db")
    cli = CommandLine(tmp_path, {"LITESTREAM_CONFIG": ""})
    cli("replicate", "-once", "app.db", "backup")
    return cli


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["restore", "nowhere", "-o", "x.db"], 3, "there is no backup"),
        (["restore", "-o", "x.db", "nosuch://b/x"], 2, "no protocol that fsspec knows"),
        (["restore", "-o", "x.db", "backup", "-keep-old", "y"], 2, "goes with -force"),
        (["restore", "-o", "backup", "backup"], 1, "not a regular file"),
        (["restore", "-force", "-o", "backup", "backup"], 1, "not a regular file"),
        (["follow", "-once", "backup", "app.db"], 1, "follow -overwrite"),
        (["replicate", "app.db", "app.db"], 2, "cannot be a replica of itself"),
        (["replicate", "app.db", "b", "-exec", "a 'b"], 2, "-exec"),
        (["replicate", "app.db", "b", "-exec", "nosuchcommand"], 2, "nosuchcommand"),
        (["rstore"], 2, "did you mean restore?"),
    ],
)
def test_mistake_is_told(
    cli: CommandLine, arguments: list[str], code: int, words: str
) -> None:
    """By what is wrong, or what to do."""
    done = cli(*arguments, code=code)
    first, *more = done.stderr.splitlines()
    assert words in first and first.startswith("sqlitereplica: ")
    assert all(line.startswith((" ", "usage:")) for line in more)


@pytest.mark.parametrize("command", ["restore", "status", "databases", "replicate"])
def test_no_configuration_is_said_with_what_to_do(
    cli: CommandLine, command: str
) -> None:
    """Where nobody has named one and there is none where it is looked for."""
    if os.path.exists("/etc/litestream.yml"):
        pytest.skip("this machine has a configuration")
    done = cli(command, code=2)
    assert "no configuration" in done.stderr and "-config FILE" in done.stderr


def test_one_pass_over_a_database_that_is_not_there_fails(cli: CommandLine) -> None:
    """A job with a misspelt path must not look like a backup that was made."""
    done = cli("replicate", "-once", "ap.db", "other", code=1)
    assert "ap.db does not exist" in done.stdout
    assert not (cli.folder / "other").exists()


def test_an_error_names_the_database_once(cli: CommandLine) -> None:
    """In the last line of the log."""
    (cli.folder / "text.db").write_text("no database at all, " * 100)
    done = cli("replicate", "-once", "text.db", "other", code=1)
    assert done.stdout.splitlines()[-1].count("text.db") == 1


def test_flags_may_stand_between_and_behind(cli: CommandLine) -> None:
    """As people write them."""
    cli("replicate", "app.db", "-once", "b1", "b2")
    cli("pin", "b1", "-txid", "1", "first")
    cli("restore", "b1", "-o", "x.db", "-timestamp", "first")
    cli("restore", "-o", "y.db", "--", "b2")
    assert count(cli.folder / "x.db") == count(cli.folder / "y.db") == 10
    assert "unrecognized" in cli("restore", "b1", "b2", "-o", "z.db", code=2).stderr


def test_help_and_version_are_found(cli: CommandLine) -> None:
    """Under the names that are tried first."""
    assert "replicate databases" in cli(code=2).stderr
    for name in ("--version", "-version"):
        assert cli(name).stdout == cli("version").stdout
    for name in ("help", "--help", "-help"):
        done = subprocess.run(
            [sys.executable, "-m", "sqlitereplica", name],
            check=True,
            capture_output=True,
            text=True,
            env=cli.environment,
        )
        assert "replicate databases" in done.stdout


def test_problems_of_a_replica_are_listed_once(cli: CommandLine) -> None:
    """And nothing to restore is said in words."""
    assert cli("verify", "nowhere", code=4).stdout.count("there is no backup") == 1
    assert "there is no backup" in cli("points", "nowhere").stdout


def test_columns_of_one_name_stay_apart(cli: CommandLine) -> None:
    """In JSON, where a name can be there only once."""
    found = cli.json("query", "backup", "select 1 a, 2 a, 3 b, 4 a")
    assert found == [{"a": 1, "a:1": 2, "b": 3, "a:2": 4}]


def test_one_database_without_a_backup_keeps_no_other_from_its_own(
    cli: CommandLine,
) -> None:
    """After a disaster all that can be restored is, and the rest is named."""
    dbs = (
        f"{{path: {n}, replica: {{path: {r}}}}}"
        for n, r in (("x.db", "nowhere"), ("y.db", "backup"), ("z.db", "none"))
    )
    (cli.folder / "c.yml").write_text(f"dbs: [{', '.join(dbs)}]")
    done = cli("restore", "-config", "c.yml", code=3)
    assert count(cli.folder / "y.db") == 10 and "y.db: transaction" in done.stdout
    assert "nowhere" in done.stderr.splitlines()[0]
    assert "also: " in done.stderr and "/none:" in done.stderr


def test_what_is_in_a_database_commands_no_terminal(cli: CommandLine) -> None:
    """And each row is one line, as is each error."""
    sql = "select 'a' || char(27) || '[2J' || char(10) || 'é' as \"b\tc\""
    columns, row = cli("query", "backup", sql).stdout.splitlines()
    assert (columns, row) == (r"b\tc", r"a\x1b[2J\né")
    done = cli("query", "backup", "select [no\nsuch\x1b] from note", code=1)
    assert done.stderr.count("\n") == 1 and "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("addr: 'nine'", "no address"),
        ("heartbeat-url: ftp://x", "heartbeat-url"),
        ("heartbeat-url: http://x\nheartbeat-interval: 1s", "a minute"),
        ("logging: {level: loud}", "log level"),
        ("logging: {type: xml}", "log type"),
        ("socket: {permissions: rw}", "octal"),
        ("exec: 'a \"b'", "-exec"),
        ("sync-interval: 0s", "sync_interval"),
    ],
)
def test_check_finds_what_the_daemon_would_refuse(
    cli: CommandLine, text: str, words: str
) -> None:
    """Before it is started, by ``config check``, which starts nothing."""
    (cli.folder / "c.yml").write_text(
        f"dbs: [{{path: a, replica: {{path: b}}}}]\n{text}"
    )
    assert words in cli("config", "check", "-config", "c.yml", code=2).stderr


def test_empty_file_that_is_open_is_not_replaced(cli: CommandLine) -> None:
    """Whoever has it open would write to a file that is no longer there."""
    with closing(sqlite3.connect(cli.folder / "new.db", isolation_level=None)) as db:
        db.execute("begin exclusive")
        assert (cli.folder / "new.db").stat().st_size == 0
        cli("restore", "-o", "new.db", "backup", code=1)
        db.execute("create table mine(x)")
        db.execute("commit")
    with closing(sqlite3.connect(cli.folder / "new.db")) as db:
        assert db.execute("select name from sqlite_master").fetchall() == [("mine",)]


def test_database_with_only_a_mirror_is_in_the_status(cli: CommandLine) -> None:
    """And metadata elsewhere are found by the configuration, named or not."""
    text = "dbs: [{path: app.db, meta-path: m, replica: {type: mirror, path: m.db}}]"
    (cli.folder / "c.yml").write_text(text)
    assert "app.db" in cli("status", "-config", "c.yml").stdout
    cli("replicate", "-once", "-config", "c.yml")
    cli.env["LITESTREAM_CONFIG"] = "c.yml"
    assert cli.json("reset", "app.db")["folder"] == str(cli.folder / "m")
    assert not (cli.folder / "m").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a system without it")
def test_hangup_ends_as_a_termination_does(cli: CommandLine) -> None:
    """With a last flush, and with the application."""
    code = (
        "import signal,sys,time\n"
        "signal.signal(signal.SIGTERM,lambda *_: sys.exit(5))\n"
        "signal.signal(signal.SIGHUP,lambda *_: None)\n"  # as servers that read anew
        "open('ready','w').close()\n"
        "while True: time.sleep(0.1)\n"
    )
    (cli.folder / "app.py").write_text(code)
    command = f"{sys.executable} app.py"
    flags = ["-exec", command, "app.db", "other"]
    with cli.killed("replicate", *flags) as process:
        eventually((cli.folder / "ready").exists, "the application")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 5
    cli("restore", "-o", "x.db", "other")
    assert count(cli.folder / "x.db") == 10


def test_signal_that_comes_before_the_application_ends_it_too(cli: CommandLine) -> None:
    """It is not started any more, or told at once: never left running and waited for."""
    dbs = [f"{{path: {i}.db, replica: {{path: r{i}}}}}" for i in range(60)]
    (cli.folder / "c.yml").write_text(f"dbs: [{', '.join(dbs)}]")
    flags = ["-exec", "sleep 100", "-config", "c.yml"]
    with cli.killed("replicate", *flags) as process:  # the first of them is replicated
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, 128 + signal.SIGTERM)


def test_new_day_that_cannot_begin_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database is not left alone for good because one start failed."""
    monkeypatch.chdir(tmp_path)
    make_app(tmp_path / "app.db")
    text = "dbs: [{path: app.db, meta-path: m, replica: {path: 'b-$(date +%F)'}}]"
    (plan,) = build(parse_config(text, env={}), {})
    clock = [datetime(2026, 11, 8, 12).astimezone()]
    unit = Unit(plan, lambda: clock[0])
    unit.roll()
    assert unit.replicator is None and not unit.is_down  # nobody has started it
    unit.start()
    assert unit.replicator is not None
    unit.replicator.sync()
    clock[0] += timedelta(days=1)
    (tmp_path / "m").rename(tmp_path / "elsewhere")
    (tmp_path / "m").touch()
    with pytest.raises(SQLiteReplicaError):
        unit.roll()
    assert unit.is_down
    unit.roll()  # not at once again
    (tmp_path / "m").unlink()
    clock[0] += timedelta(seconds=11)
    unit.roll()
    assert not unit.is_down
    unit.replicator.sync()
    assert (tmp_path / "b-2026-11-09").is_dir()
    unit.stop()
    unit.roll()
    assert unit.replicator is None


RUNNING = Status(
    database="a",
    state="running",
    txid=1,
    error=None,
    pending_pages=0,
    replicas=(
        ReplicaStatus(
            name="r",
            state="streaming",
            txid=1,
            lag_seconds=0.0,
            last_success=None,
            error=None,
            spool_bytes=0,
        ),
    ),
)


def test_heartbeat_that_fails_in_any_way_is_only_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server that talks nonsense must not end the daemon, nor a URL that is none."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"nonsense\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        for place in (url, "http://[/"):
            assert Heartbeat(place, None).look([RUNNING], clock=1e9, now=0.0)
        thread.join()
    assert caplog.text.count("does not answer") == 2
