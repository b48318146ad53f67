"""``-all``: many replicas from the command line, told one by one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commandline import CommandLine
from support.fleets import damage, image, members


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """In a folder where three replicas are."""
    members(tmp_path / "backups", 3)
    return CommandLine(tmp_path)


def lines(cli: CommandLine, *arguments: str, code: int = 0) -> list[dict[str, object]]:
    """What it prints, a line for each replica, by their names."""
    out = cli(*arguments, "-json", code=code).stdout.splitlines()
    return sorted(map(json.loads, out), key=lambda found: str(found["replica"]))


def test_all_are_verified_and_the_exit_code_says_whether_all_are_well(
    cli: CommandLine,
) -> None:
    """One that is damaged does not hide the others."""
    found = lines(cli, "verify", "-all", "backups", "-jobs", "2")
    assert [row["ok"] for row in found] == [True] * 3
    damage(cli.folder / "backups" / "db-1")
    found = lines(cli, "verify", "-all", "backups", code=4)
    assert [row["ok"] for row in found] == [True, False, True]
    report = found[1]["result"]
    assert isinstance(report, dict) and len(report["bad_files"]) == 1
    text = cli("verify", "-all", "backups", "-level", "restore", code=4).stdout
    assert "3 replicas, 2 ok" in text and text.count("ok      ") == 2
    assert "bad     " in text


def test_all_are_restored_by_a_template(cli: CommandLine) -> None:
    """What is there already is the error of that one."""
    found = lines(cli, "restore", "-all", "backups", "-o", "out/{name}.db")
    assert len(found) == 3 and all(row["ok"] for row in found)
    assert (cli.folder / "out" / "db-2.db").read_bytes() == image()
    (cli.folder / "out" / "db-2.db").unlink()
    again = "restore", "-all", "backups", "-o", "out/{name}.db"
    found = lines(cli, *again, code=4)
    assert [row["ok"] for row in found] == [False, False, True]
    error = found[0]["error"]
    assert isinstance(error, dict) and error["kind"] == "target-exists"
    assert all(row["ok"] for row in lines(cli, *again, "-if-db-not-exists"))


def test_one_or_all_are_compacted(cli: CommandLine) -> None:
    """Which needs no database."""
    one = cli.json("compact", "backups/db-0")
    assert (one["files"], one["deleted"]) == (4, 0)
    assert "0 files" in cli("compact", "backups/db-0").stdout
    text = cli("compact", "-all", "backups").stdout
    assert "3 replicas, 3 ok" in text and text.count("4 files made of 6") == 2


def test_what_makes_no_sense_is_refused(cli: CommandLine) -> None:
    """And nothing found is no success: a typing error in a URL would look like one."""
    for wrong in (
        ("verify", "-all", "backups", "-config", "l.yml"),
        ("verify", "-all", "backups", "-jobs", "0"),
        ("verify", "-all", "backups", "-at-least", "3"),
        ("restore", "-all", "backups"),
        ("restore", "-all", "-o", "x/{name}"),
        ("restore", "-all", "backups", "-o", "x/{nam}"),
        ("restore", "-all", "backups", "-o", "x/{name}", "-txid", "3"),
    ):
        assert cli(*wrong, code=2).stderr
    assert "0 replicas" in cli("verify", "-all", "nowhere", code=4).stdout
