"""The flows of the operations guide, as they are written there."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.commandline import CommandLine, count, eventually, make_app, write
from support.litestream import Litestream
from support.servers import S3Server

from sqlitereplica import Replicator, restore_points
from sqlitereplica.cli.units import Unit
from sqlitereplica.config import build, parse_config

LOCAL = """
dbs:
  - path: data/app.db
    replicas:
      - type: file
        path: backups/app
        sync-interval: 100ms
      - type: file
        path: backups/daily/app-$(date +%Y-%m-%d)
        retention: 7d
"""

PRODUCTION = """
access-key-id: ${KEY}
secret-access-key: ${SECRET}
endpoint: ${ENDPOINT:-http://127.0.0.1:1}
dbs:
  - path: ${DATA_DIR}/app.db
    replica:
      type: s3
      bucket: ${BUCKET}
      path: app
      region: us-east-1
      sync-interval: 100ms
"""


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """An empty folder."""
    return CommandLine(tmp_path)


def has_rows(path: Path, rows: int) -> bool:
    """Whether a database has them; there may be no table yet."""
    try:
        return count(path) == rows
    except sqlite3.OperationalError:
        return False


def newest(place: Path) -> int:
    """The newest transaction in a replica, 0 for none."""
    latest = restore_points(place).latest
    return latest.txid if latest else 0


# -- local development -------------------------------------------------------------------


def test_two_file_replicas_one_of_them_dated(cli: CommandLine) -> None:
    """Both follow the database; each restores to the same."""
    database = cli.folder / "data/app.db"
    make_app(database)
    (cli.folder / "litestream.yml").write_text(LOCAL)
    # local time, as the shell's date; the test may run over midnight
    days = [datetime.now().astimezone()]
    with cli.background("replicate", "-config", "litestream.yml"):
        write(database, 20)
        eventually(lambda: newest(cli.folder / "backups/app") > 0, "the first replica")
    days.append(datetime.now().astimezone())
    cli("restore", "-o", "one.db", "backups/app")
    dated = cli.folder / f"backups/daily/app-{days[-1]:%Y-%m-%d}"
    if not dated.exists():
        dated = cli.folder / f"backups/daily/app-{days[0]:%Y-%m-%d}"
    cli("restore", "-o", "two.db", str(dated))
    assert count(cli.folder / "one.db") == count(cli.folder / "two.db") == 30


def test_dated_replica_rolls_over_and_old_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At midnight a new one begins; one is deleted when all in it is out of its window."""
    monkeypatch.chdir(tmp_path)
    database = tmp_path / "data/app.db"
    make_app(database)
    (plan,) = build(parse_config(LOCAL, env={}), {})
    now = datetime.now().astimezone()
    clock = [now - timedelta(days=1)]
    unit = Unit(plan, lambda: clock[0])
    daily = tmp_path / "backups/daily"
    foreign = daily / "app-notes"
    foreign.mkdir(parents=True)
    (foreign / "x").write_text("mine")
    unit.start()
    assert unit.replicator is not None
    unit.replicator.sync()
    clock[0] = now
    unit.roll()
    unit.replicator.sync()
    unit.roll()  # the date is the same: nothing happens
    names = sorted(path.name for path in daily.iterdir())
    before, today = f"app-{now - timedelta(days=1):%Y-%m-%d}", f"app-{now:%Y-%m-%d}"
    assert names == sorted([before, today, "app-notes"])
    write(database, 1)
    unit.replicator.sync()
    assert newest(tmp_path / "backups/app") == 2  # continued, not begun anew
    clock[0] = now + timedelta(days=6, hours=23)
    unit.expire()
    assert (daily / before).exists()
    clock[0] = now + timedelta(days=7, hours=1)
    unit.expire()
    names = sorted(path.name for path in daily.iterdir())
    assert names == ["app-notes"] or names == [today, "app-notes"]
    assert (foreign / "x").read_text() == "mine"
    unit.stop()


def test_pinned_day_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dated replica with a pin in it is not deleted, whatever its age."""
    monkeypatch.chdir(tmp_path)
    make_app(tmp_path / "data/app.db")
    (plan,) = build(parse_config(LOCAL, env={}), {})
    now = datetime.now().astimezone()
    clock = [now]
    unit = Unit(plan, lambda: clock[0])
    unit.start()
    assert unit.replicator is not None
    unit.replicator.sync()
    unit.stop()
    dated = plan.replicas_at(now)[1]
    dated.pin("keep")
    clock[0] = now + timedelta(days=30)
    unit.expire()
    assert newest(Path(dated.display_name)) == 1
    dated.unpin("keep")
    unit.expire()
    assert not Path(dated.display_name).exists()


# -- production --------------------------------------------------------------------------


@pytest.fixture
def production(cli: CommandLine, s3_server: S3Server) -> CommandLine:
    """A configuration whose values come from the environment."""
    (cli.folder / "data").mkdir()
    (cli.folder / "litestream.yml").write_text(PRODUCTION)
    cli.env |= {
        "KEY": s3_server.key,
        "SECRET": s3_server.secret,
        "ENDPOINT": s3_server.endpoint,
        "BUCKET": s3_server.make_bucket(),
        "DATA_DIR": str(cli.folder / "data"),
        "LITESTREAM_CONFIG": "litestream.yml",
        "LITESTREAM_RETENTION": "30d",
        "LITESTREAM_BUFFER_SIZE": "32MB",
    }
    return cli


def test_production_with_variables_and_disaster_recovery(
    production: CommandLine, litestream: Litestream
) -> None:
    """Replicate to S3, lose the database, restore by the configuration alone."""
    cli = production
    database = cli.folder / "data/app.db"
    make_app(database)
    with cli.background("replicate"):
        write(database, 5)
    for path in database.parent.glob("*app.db*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    cli("restore")
    assert count(database) == 15
    # Litestream itself takes the same file.
    config = PRODUCTION.replace("${ENDPOINT:-http://127.0.0.1:1}", "${ENDPOINT}")
    (cli.folder / "theirs.yml").write_text(config)
    litestream.run(
        "restore",
        "-config",
        cli.folder / "theirs.yml",
        "-o",
        cli.folder / "theirs.db",
        database,
        **cli.env,
    )
    assert count(cli.folder / "theirs.db") == 15


def test_restore_to_a_timestamp(production: CommandLine) -> None:
    """The state just before a mistake."""
    cli = production
    database = cli.folder / "data/app.db"
    make_app(database)
    cli("replicate", "-once")
    time.sleep(1.1)
    moment = datetime.now(UTC)
    time.sleep(0.1)
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("delete from note")
    cli("replicate", "-once")
    text = moment.isoformat(timespec="milliseconds")
    cli("restore", "-o", "before.db", "-timestamp", text, str(database))
    cli("restore", "-o", "after.db", str(database))
    assert count(cli.folder / "before.db") == 10 and count(cli.folder / "after.db") == 0


# -- containers --------------------------------------------------------------------------

START = """#!/bin/sh
set -e
sqlitereplica restore -if-db-not-exists -if-replica-exists -o "$DB" "$REPLICA"
sqlitereplica replicate "$DB" "$REPLICA" &
exec python app.py
"""

APP = """
import sqlite3, sys, os, time
db = sqlite3.connect(os.environ["DB"], isolation_level=None, timeout=30)
db.execute("pragma journal_mode=wal")
db.execute("create table if not exists note(id integer primary key, body)")
for _ in range(10):
    db.execute("insert into note(body) values(1)")
print(db.execute("select count(*) from note").fetchone()[0], flush=True)
"""


def tools(folder: Path) -> dict[str, str]:
    """A PATH with the commands of an image: ours and Python."""
    bin_ = folder / "bin"
    bin_.mkdir()
    (bin_ / "python").symlink_to(sys.executable)
    ours = bin_ / "sqlitereplica"
    ours.write_text(f'#!/bin/sh\nexec {sys.executable} -m sqlitereplica "$@"\n')
    ours.chmod(0o755)
    return {"PATH": f"{bin_}:{os.environ['PATH']}"}


def test_container_start_script(cli: CommandLine) -> None:
    """Restore if missing, replicate in the background, start the application."""
    replica = cli.folder / "replica"
    (cli.folder / "app.py").write_text(APP)
    (cli.folder / "start.sh").write_text(START)
    cli.env |= tools(cli.folder) | {"DB": "data/app.db", "REPLICA": str(replica)}
    for life in (1, 2):
        (cli.folder / "data").mkdir()
        output = cli.folder / f"output-{life}"
        with output.open("wb") as stdout:
            container = subprocess.Popen(
                ["sh", "start.sh"],
                cwd=cli.folder,
                env=cli.environment,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            assert container.wait(60) == 0, output.read_text()
            assert f"{life * 10}\n" in output.read_text()
            eventually(lambda: newest(replica) > 0, "a replica")

            def is_there(want: int = life * 10) -> bool:
                cli("restore", "-force", "-o", "look.db", str(replica))
                return has_rows(cli.folder / "look.db", want)

            eventually(is_there, "the rows in the replica")
        finally:
            os.killpg(container.pid, signal.SIGKILL)
        shutil.rmtree(cli.folder / "data")  # the container's disk goes with it


def test_exec_runs_the_application_and_ends_with_it(cli: CommandLine) -> None:
    """One process to start: restores first, ends with the code of the application."""
    (cli.folder / "app.py").write_text(APP + "\nsys.exit(7)\n")
    cli.env["DB"] = "app.db"
    command = f"{sys.executable} app.py"
    flags = ["-restore-if-db-not-exists", "-exec", command]
    done = cli.process("replicate", *flags, "app.db", "replica", code=7)
    assert "10\n" in done.stdout
    (cli.folder / "app.db").unlink()
    done = cli.process("replicate", *flags, "app.db", "replica", code=7)
    assert "20\n" in done.stdout
    cli("restore", "-o", "copy.db", "replica")
    assert count(cli.folder / "copy.db") == 20


def test_signals_reach_the_application(cli: CommandLine) -> None:
    """SIGTERM is handed on; the end waits for the application and for the last flush."""
    code = (
        "import signal,sqlite3,sys,time\n"
        "def end(*_):\n"
        " db=sqlite3.connect('app.db'); db.execute('insert into note values(99,1)')\n"
        " db.commit(); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM,end); open('ready','w').close()\n"
        "while True: time.sleep(0.1)\n"
    )
    (cli.folder / "app.py").write_text(code)
    make_app(cli.folder / "app.db")
    command = f"{sys.executable} app.py"
    with cli.background("replicate", "-exec", command, "app.db", "replica"):
        eventually((cli.folder / "ready").exists, "the application")
    cli("restore", "-o", "copy.db", "replica")
    assert count(cli.folder / "copy.db") == 11


# -- migration ---------------------------------------------------------------------------


def test_database_is_replaced_while_it_is_replicated(cli: CommandLine) -> None:
    """``restore -o new.db`` and an atomic ``mv``: noticed, and the chain goes on."""
    database, replica = cli.folder / "app.db", cli.folder / "replica"
    make_app(database)
    with cli.background("replicate", "app.db", "replica"):
        write(database, 5)
        eventually(lambda: newest(replica) > 0, "the first upload")

        def has(rows: int) -> bool:
            cli("restore", "-force", "-o", "new.db", "replica")
            return count(cli.folder / "new.db") == rows

        eventually(lambda: has(15), "all rows")
        with closing(sqlite3.connect(cli.folder / "new.db")) as db, db:
            db.execute("alter table note add column more")
            db.execute("insert into note(body, more) values(1, 2)")
        before = newest(replica)
        os.replace(cli.folder / "new.db", database)
        log = cli.folder / "log-0"
        eventually(lambda: log.read_text().count('msg="attach') > 1, "the new file")
        write(database, 1)
        eventually(lambda: has(17), "the migrated rows")
    cli("verify", "-level", "restore", "replica")
    assert newest(replica) > before
    files = cli.json("ltx", "replica")
    assert files[-1]["min_txid"] != "0" * 15 + "1"  # one chain: nothing was begun anew


def test_configuration_drives_a_replicator_of_the_library(tmp_path: Path) -> None:
    """What the file says is what ``Replicator`` takes: no logic of the command's own."""
    make_app(tmp_path / "app.db")
    text = f"dbs: [{{path: {tmp_path}/app.db, replica: {{path: {tmp_path}/r}}}}]"
    (plan,) = build(parse_config(text), {})
    replicas = plan.replicas_at(datetime.now().astimezone())
    with Replicator(plan.path, replicas, **plan.arguments) as replicator:
        replicator.sync()
    assert newest(tmp_path / "r") == 1


# -- reading -----------------------------------------------------------------------------

MIRRORED = """
dbs:
  - path: app.db
    replicas:
      - {type: file, path: replica, sync-interval: 50ms}
      - {type: mirror, path: backups/app.db}
      - {type: mirror, path: "backups/daily/$(date +%Y-%m-%d).db", retention: 7d}
"""

SHELL = """
import sqlite3, sys
print(sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True).execute(sys.argv[2]).fetchone()[0])
"""


def shell(path: Path, sql: str) -> str:
    """What another process reads with the SQLite of Python's standard library."""
    command = [sys.executable, "-c", SHELL, str(path), sql]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout.strip()


def test_mirror_is_current_for_any_sqlite(cli: CommandLine) -> None:
    """A moment after a commit; to check that the backup is current is one query."""
    database = cli.folder / "app.db"
    make_app(database)
    (cli.folder / "l.yml").write_text(MIRRORED)
    with cli.background("replicate", "-config", "l.yml"):
        write(database, 5)
        question = "select count(*) from note"
        mirror = cli.folder / "backups/app.db"
        eventually(lambda: shell(mirror, question) == "15", "the mirror")
        (dated,) = (cli.folder / "backups/daily").glob("*.db")
        eventually(lambda: shell(dated, question) == "15", "the dated mirror")
    (row,) = cli.json("databases", "-config", "l.yml")
    assert str(mirror) in row["replicas"] or "backups/app.db" in row["replicas"]
    assert cli.json("restore", "-force", "-config", "l.yml", "app.db")["txid"]


def test_file_follows_until_a_signal(cli: CommandLine) -> None:
    """``follow`` and ``restore -f``, as processes; each ends by SIGTERM with code 0."""
    database = cli.folder / "app.db"
    make_app(database)
    cli("replicate", "-once", "app.db", "replica")
    commands = (
        ["follow", "-interval", "50ms", "replica", "one.db"],
        ["restore", "-f", "-follow-interval", "50ms", "-o", "two.db", "replica"],
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "sqlitereplica", *command],
            cwd=cli.folder,
            env=cli.environment,
            stdout=subprocess.DEVNULL,
        )
        for command in commands
    ]
    try:
        copies = [cli.folder / "one.db", cli.folder / "two.db"]
        question = "select count(*) from note"
        for rows in (10, 15):
            for copy in copies:
                eventually(
                    lambda path=copy, n=rows: shell(path, question) == str(n), copy.name
                )
            write(database, 5)
            cli("replicate", "-once", "app.db", "replica")
        for process in running:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(60) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_query_reads_a_replica_in_place(cli: CommandLine) -> None:
    """Now and at a pin; the output is a table or JSON."""
    database = cli.folder / "app.db"
    make_app(database)
    cli("replicate", "-once", "app.db", "replica")
    cli("pin", "replica", "before")
    write(database, 5)
    cli("replicate", "-once", "app.db", "replica")
    question = "select count(*) as n, null as z, x'00ff' as b from note"
    assert cli.json("query", "replica", question) == [{"n": 15, "z": None, "b": "00ff"}]
    assert cli.json("query", "-at", "before", "replica", question)[0]["n"] == 10
    assert cli.json("query", "replica", question, "--at", "before")[0]["n"] == 10
    assert "NULL" in cli("query", "replica", question).stdout
    assert "no such table" in cli("query", "replica", "select * from x", code=1).stderr
    assert "read" in cli("query", "replica", "delete from note", code=1).stderr
