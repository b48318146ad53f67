"""Each command as a process: what it prints, its exit code, its errors."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from support.commandline import CommandLine, count, make_app, write

CONFIG = """
dbs:
  - path: app.db
    replica: {path: backups/app}
"""


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """A folder with a database, a configuration and a replica."""
    make_app(tmp_path / "app.db")
    (tmp_path / "l.yml").write_text(CONFIG)
    cli = CommandLine(tmp_path)
    cli("replicate", "-once", "-config", "l.yml")
    return cli


def test_one_pass_and_restore(cli: CommandLine) -> None:
    """With one dash or two, with = or without."""
    done = cli("restore", "--o=copy.db", "backups/app")
    assert "transaction 1" in done.stdout and count(cli.folder / "copy.db") == 10
    write(cli.folder / "app.db", 5)
    cli("replicate", "--once=true", "--config=l.yml")
    cli("restore", "-force", "-o", "copy.db", "backups/app")
    assert count(cli.folder / "copy.db") == 15


def test_once_without_configuration(cli: CommandLine) -> None:
    """A database and several places on the command line."""
    cli("replicate", "-once", "app.db", "b1", "b2")
    for name in ("b1", "b2"):
        cli("restore", "-o", f"{name}.db", name)
        assert count(cli.folder / f"{name}.db") == 10


def test_force_snapshot_and_enforce_retention(cli: CommandLine) -> None:
    """As Litestream's flags: with -once only."""
    write(cli.folder / "app.db", 1)
    cli(
        "replicate",
        "-config",
        "l.yml",
        "-once",
        "-force-snapshot",
        "-enforce-retention",
    )
    levels = {f["level"] for f in cli.json("ltx", "-level", "all", "backups/app")}
    assert 9 in levels
    cli("replicate", "-config", "l.yml", "-force-snapshot", code=2)


def test_restore_says_what_it_would_do(cli: CommandLine) -> None:
    """And does not do it."""
    found = cli.json("restore", "-dry-run", "-o", "copy.db", "backups/app")
    assert (found["txid"], len(found["files"])) == (1, 1) and found["bytes"] > 0
    assert "would restore" in cli("restore", "-dry-run", "-config", "l.yml").stdout
    assert not (cli.folder / "copy.db").exists()


def test_restore_over_what_is_there(cli: CommandLine) -> None:
    """Refused, skipped, or replaced as told; the old one kept as told."""
    done = cli("restore", "-config", "l.yml", "app.db", code=1)
    assert "-if-db-not-exists keeps it, -force replaces it" in done.stderr
    found = cli.json("restore", "-if-db-not-exists", "-config", "l.yml", "app.db")
    assert found["result"] == "exists"
    write(cli.folder / "app.db", 1)
    cli("restore", "-force", "-keep-old", "old.db", "-config", "l.yml", "app.db")
    assert (count(cli.folder / "app.db"), count(cli.folder / "old.db")) == (10, 11)
    (cli.folder / "empty.db").touch()
    cli("restore", "-o", "empty.db", "backups/app")
    assert count(cli.folder / "empty.db") == 10


def test_missing_replica(cli: CommandLine) -> None:
    """An error of its own, or nothing, as told."""
    done = cli("restore", "-o", "x.db", "backups/none", code=3)
    assert "no backup" in done.stderr and done.stderr.count("\n") == 1
    found = cli.json("restore", "-if-replica-exists", "-o", "x.db", "backups/none")
    assert found["result"] == "missing" and not (cli.folder / "x.db").exists()


def test_state_by_transaction_and_time(cli: CommandLine) -> None:
    """Decimal, 16 hex digits, a time, a pin; what is not there is named."""
    write(cli.folder / "app.db", 1)
    cli("replicate", "-once", "-config", "l.yml")
    (pin,) = cli.json("pin", "backups/app", "before", "-txid", "1")
    assert (pin["name"], pin["txid"]) == ("before", 1)
    for flags in (["-txid", "1"], ["-txid", f"{1:016x}"], ["-timestamp", "before"]):
        cli("restore", "-force", "-o", "x.db", *flags, "backups/app")
        assert count(cli.folder / "x.db") == 10
    done = cli("restore", "-o", "y.db", "-txid", "77", "backups/app", code=3)
    assert "transaction 77" in done.stderr
    cli("restore", "-o", "y.db", "-txid", "x", "backups/app", code=2)
    cli("restore", "-o", "y.db", "-txid", "1", "-timestamp", "1h ago", "x", code=2)
    assert [p["name"] for p in cli.json("pin", "-config", "l.yml", "app.db")] == [
        "before"
    ]
    cli("pin", "-delete", "backups/app", "before")
    assert cli.json("pin", "backups/app") == []
    cli("pin", "-delete", "backups/app", "before", code=3)


def test_listings(cli: CommandLine) -> None:
    """Databases, files, points and state, as tables and as JSON."""
    (database,) = cli.json("databases", "-config", "l.yml")
    assert database["path"] == str(cli.folder / "app.db")
    assert database["replicas"] == [str(cli.folder / "backups/app")]
    (file,) = cli.json("ltx", "-config", "l.yml", "app.db")
    assert (file["level"], file["max_txid"]) == (0, "0" * 15 + "1")
    assert "max_txid" in cli("wal", "backups/app").stdout
    assert [p["txid"] for p in cli.json("points", "backups/app")["points"]] == [1]
    (status,) = cli.json("status", "-config", "l.yml")
    assert status["status"] == "ok" and status["replicas"][0]["txid"] == 1
    assert "backups/app" in cli("status", "-config", "l.yml", "app.db").stdout
    cli("ltx", "-level", "11", "backups/app", code=2)


def test_verify_tells_by_its_exit_code(cli: CommandLine) -> None:
    """Nothing else is needed for a cron job."""
    assert cli.json("verify", "-level", "restore", "backups/app")["ok"] is True
    cli("verify", "-at-least", "99", "backups/app", code=4)
    (file,) = (cli.folder / "backups/app/ltx/0").iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert cli.json("verify", "backups/app", code=4)["ok"] is False


def test_reset_forgets_the_metadata(cli: CommandLine) -> None:
    """Not the replica; the next start compares with that."""
    folder = cli.folder / ".app.db-sqlitereplica"
    assert "would be deleted" in cli("reset", "-dry-run", "app.db").stdout
    assert folder.is_dir()
    assert cli.json("reset", "app.db")["removed"] and not folder.exists()
    assert "nothing to forget" in cli("reset", "app.db").stdout
    cli("replicate", "-once", "-config", "l.yml")
    assert len(cli.json("ltx", "backups/app")) == 1


def test_config_check(cli: CommandLine) -> None:
    """Says what is wrong, where, and what changes nothing."""
    assert "ok, 1 databases" in cli("config", "check", "-config", "l.yml").stdout
    (cli.folder / "x.yml").write_text("dbs:\n  - path: a\n    replca: {path: b}\n")
    done = cli("config", "check", "-config", "x.yml", code=2)
    assert "x.yml:3: unknown key 'replca': did you mean 'replica'?" in done.stderr
    done = cli("config", "check", "-lenient", "-config", "x.yml", code=2)
    assert "warning" in done.stderr and "no replica is given" in done.stderr
    (cli.folder / "y.yml").write_text(CONFIG + "mcp-addr: ':1'\n")
    found = cli.json("config", "check", "-config", "y.yml")
    assert [i["key"] for i in found["ignored"]] == ["mcp-addr"]
    cli("config", "check", "-config", "none.yml", code=2)


def test_configuration_is_found_by_its_variable(cli: CommandLine) -> None:
    """LITESTREAM_CONFIG, as for Litestream."""
    cli.env["LITESTREAM_CONFIG"] = "l.yml"
    assert len(cli.json("databases")) == 1
    assert cli.json("restore", "-if-db-not-exists", "app.db")["result"] == "exists"


def test_wrong_usage_is_told_in_a_line(cli: CommandLine) -> None:
    """With what may have been meant, and how it is written."""
    done = cli("restor", code=2)
    assert "did you mean restore?" in done.stderr and "Traceback" not in done.stderr
    assert "did you mean -force?" in cli("restore", "-frce", "x", code=2).stderr
    cli("restore", "backups/app", code=2)
    cli("restore", "-o", "x.db", "app.db", code=2)
    cli("restore", "-config", "l.yml", "other.db", code=2)
    cli("replicate", "app.db", code=2)
    cli("replicate", "-once", "-exec", "true", "-config", "l.yml", code=2)
    cli(code=2)


def test_version(cli: CommandLine) -> None:
    """The library's, and of what it is made with."""
    assert cli("version").stdout.strip()
    assert set(cli.json("version", "-verbose")) >= {"sqlitereplica", "sqlite", "apsw"}


def test_progress_is_drawn_on_a_terminal_only(cli: CommandLine) -> None:
    """In a pipe there is nothing but the result."""
    done = cli("restore", "-force", "-o", "x.db", "backups/app")
    assert done.stderr == "" and "\r" not in done.stdout
    write(cli.folder / "app.db", 3000)
    cli("replicate", "-once", "-config", "l.yml")
    ours, theirs = pty.openpty()
    code = (
        "import sys; from sqlitereplica.cli import main, output;"
        "output._EVERY = 0; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["restore", "-force", "-o", "y.db", "backups/app"]
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=False,
        cwd=cli.folder,
        env=cli.environment,
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=60,
    )
    os.close(theirs)
    drawn = os.read(ours, 65536).decode()
    os.close(ours)
    assert process.returncode == 0 and "y.db [" in drawn and "/s" in drawn
    assert drawn.endswith("\r\x1b[K")
