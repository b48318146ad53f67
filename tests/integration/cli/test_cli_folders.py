"""``dir`` in a configuration: the daemon on a folder of databases, and single ones of it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commandline import CommandLine, count, eventually, make_app, write
from support.litestream import Litestream

from sqlitereplica import StoreError
from sqlitereplica.cli.commands.controlling import ask
from sqlitereplica.cli.units import stop_together

CONFIG = """
addr: "127.0.0.1:0"
socket: {{enabled: true, path: {socket}}}
dbs:
  - dir: tenants
    pattern: "*.db"
    recursive: true
    watch: true
    meta-dir: meta
    replica: {{path: replica, sync-interval: 50ms}}
  - path: app.db
    replica: {{path: single, sync-interval: 50ms}}
"""


@pytest.fixture
def cli(tmp_path: Path, socket_path: str) -> CommandLine:
    """A folder of two databases, one more database, a configuration."""
    for name in ("app.db", "tenants/a.db", "tenants/eu/b.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        make_app(tmp_path / name)
    (tmp_path / "l.yml").write_text(CONFIG.format(socket=socket_path))
    return CommandLine(tmp_path)


@pytest.fixture
def daemon(cli: CommandLine, socket_path: str) -> Iterator[CommandLine]:
    """The daemon at work."""
    with cli.background("replicate", "-config", "l.yml"):
        eventually(Path(socket_path).exists, "the socket")
        yield cli


def restored(cli: CommandLine, replica: str) -> int:
    """How many rows a replica restores to."""
    cli("restore", "-force", "-o", "copy.db", replica)
    return count(cli.folder / "copy.db")


def test_the_daemon_on_a_folder(
    daemon: CommandLine, socket_path: str, litestream: Litestream
) -> None:
    """Databases that are there, come, change and go; Litestream restores one of them."""
    cli, at = daemon, ["-socket", socket_path]
    tenants = cli.folder / "tenants"
    write(tenants / "a.db", 3)
    cli("sync", "-wait", str(tenants / "a.db"), *at)
    assert restored(cli, "replica/a.db") == 13
    make_app(tenants / "new.db")
    listed = lambda: [  # noqa: E731
        row["path"] for row in cli.json("list", *at)["databases"]
    ]
    eventually(lambda: str(tenants / "new.db") in listed(), "the new one")
    assert listed() == [
        str(cli.folder / "app.db"),
        *(str(tenants / name) for name in ("a.db", "eu/b.db", "new.db")),
    ]
    assert cli.json("info", *at)["database_count"] == 4
    write(tenants / "eu/b.db", 1)
    cli("sync", "-wait", str(tenants), *at)
    assert restored(cli, "replica/eu/b.db") == 11
    assert restored(cli, "replica/new.db") == 10
    copy = cli.folder / "litestream.db"
    litestream.run("restore", "-o", copy, f"file://{cli.folder}/replica/eu/b.db")
    assert count(copy) == 11
    for path in tenants.glob("new.db*"):
        path.unlink()
    eventually(lambda: str(tenants / "new.db") not in listed(), "its end")
    assert (cli.folder / "meta/eu/b.db-sqlitereplica").is_dir()


def test_requests_about_one_of_a_folder(daemon: CommandLine, socket_path: str) -> None:
    """Its transaction is told; it is not stopped, started or let go by itself."""
    path = str(daemon.folder / "tenants/a.db")
    assert ask(socket_path, "GET", f"/txid?path={path}", None, 60) == {"txid": 1}
    for route in ("/start", "/stop", "/unregister"):
        with pytest.raises(StoreError, match="is of a dir"):
            ask(socket_path, "POST", route, {"path": path}, 60)
    given = {"path": path, "replica_url": "file:///elsewhere"}
    answer = ask(socket_path, "POST", "/register", given, 60)
    assert answer["status"] == "already_registered"
    answer = ask(socket_path, "GET", f"/debug/sync-status?path={path}", None, 60)
    assert [row["database"] for row in answer["databases"]] == [path]
    unknown = f"/txid?path={daemon.folder}/tenants/no.db"
    with pytest.raises(StoreError, match="not found"):
        ask(socket_path, "GET", unknown, None, 60)


def test_metrics_and_health_stay_small(daemon: CommandLine, socket_path: str) -> None:
    """A folder is one row and one label, however many databases it has."""
    cli = daemon
    text = (cli.folder / "log-0").read_text()
    port = text.split("metrics and health on ")[1].split('"')[0]
    cli("sync", "-wait", str(cli.folder / "tenants"), "-socket", socket_path)
    with urllib.request.urlopen(f"http://{port}/metrics", timeout=30) as answer:
        page = answer.read().decode()
    folder = str(cli.folder / "tenants")
    assert f'litestream_group_databases{{db="{folder}",state="failed"}} 0.0' in page
    assert f'litestream_sync_seconds{{db="{folder}"}}' in page or "a.db" not in page
    assert "a.db" not in page and "b.db" not in page
    with urllib.request.urlopen(f"http://{port}/health", timeout=30) as answer:
        found = json.loads(answer.read())
    rows = {row["database"]: row for row in found["databases"]}
    assert set(rows) == {folder, str(cli.folder / "app.db")}
    assert rows[folder]["status"]["databases"] == 2
    (cli.folder / "tenants/text.db").write_text("no database" * 100)

    def is_told() -> bool:
        try:
            urllib.request.urlopen(f"http://{port}/health", timeout=30).close()
        except urllib.error.HTTPError as error:
            with error:
                return error.code == 503 and b"text.db" in error.read()
        return False

    eventually(is_told, "503")


def test_one_pass_over_a_folder(cli: CommandLine) -> None:
    """-once, with a snapshot of each; one that is no database fails it, and no other."""
    cli(
        "replicate",
        "-once",
        "-force-snapshot",
        "-enforce-retention",
        "-config",
        "l.yml",
    )
    for name in ("a.db", "eu/b.db"):
        assert restored(cli, f"replica/{name}") == 10
        assert cli.json("ltx", "-level", "9", f"replica/{name}")
    write(cli.folder / "tenants/a.db", 1)
    (cli.folder / "tenants/0.db").write_text("no database" * 100)
    cli("replicate", "-once", "-config", "l.yml", code=1)
    assert restored(cli, "replica/a.db") == 11


def test_what_does_not_count_for_a_folder_is_said(cli: CommandLine) -> None:
    """Nothing that was asked for is left undone in silence."""
    file = cli.folder / "l.yml"
    file.write_text(file.read_text() + "verify-interval: 1h\n")
    done = cli("replicate", "-once", "-restore-if-db-not-exists", "-config", "l.yml")
    for what in ("not restored first", "not verified in the background"):
        assert f"databases of {cli.folder / 'tenants'}: they are {what}" in done.stdout


def test_single_databases_of_a_folder(cli: CommandLine) -> None:
    """restore, status, ltx and reset know the replica of each by its path."""
    cli("replicate", "-once", "-config", "l.yml")
    path = cli.folder / "tenants/eu/b.db"
    row = cli.json("status", "-config", "l.yml", str(path))[0]
    assert (row["status"], row["replicas"][0]["txid"]) == ("ok", 1)
    path.unlink()
    cli("restore", "-config", "l.yml", "tenants/eu/b.db")
    assert count(path) == 10
    assert cli.json("ltx", "-config", "l.yml", "tenants/a.db")
    cli("reset", "-config", "l.yml", "tenants/a.db")
    assert not (cli.folder / "meta/a.db-sqlitereplica/pages").exists()
    done = cli("restore", "-config", "l.yml", "-o", "x.db", "tenants/a.txt", code=2)
    assert "is not in" in done.stderr


def test_a_folder_without_databases(cli: CommandLine) -> None:
    """Without watch there is nothing to wait for; with it the daemon waits."""
    (cli.folder / "empty").mkdir()
    text = "dbs: [{dir: empty, pattern: '*.db', replica: {path: r}}]"
    (cli.folder / "e.yml").write_text(text)
    done = cli.process("replicate", "-config", "e.yml", code=1)
    assert "watch: true" in done.stderr
    (cli.folder / "e.yml").write_text(text.replace("'*.db'", "'*.db', watch: true"))
    with cli.background("replicate", "-config", "e.yml"):
        make_app(cli.folder / "empty/late.db")
        replica = cli.folder / "r/late.db/ltx/0"
        eventually(lambda: replica.is_dir() and list(replica.iterdir()), "its replica")


def test_whatever_is_not_flushed_at_the_end_counts() -> None:
    """Also what the system says; the others are stopped all the same."""
    stopped: list[str] = []

    def fail(error: Exception) -> None:
        raise error

    full, away = OSError(28, "no space left"), StoreError("away", operation="put")
    failures = stop_together(
        [
            ("a", lambda: fail(full)),
            ("b", lambda: fail(away)),
            ("c", lambda: stopped.append("c")),
        ]
    )
    assert stopped == ["c"]
    assert set(failures) == {full, away}
