"""The service files under docs/examples: run here, or read with our own command line."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commandline import CommandLine, count, eventually, make_app, write

from sqlitereplica.cli.arguments import normalized
from sqlitereplica.cli.main import _parser
from sqlitereplica.config import build, parse_config

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
SERVICE = EXAMPLES / "sqlitereplica.service"

APP = """
import sqlite3, os, sys
db = sqlite3.connect(os.environ["DB"], isolation_level=None, timeout=30)
db.execute("pragma journal_mode = wal")
db.execute("create table if not exists note(id integer primary key, body)")
db.execute("insert into note(body) values(1)")
print("rows", db.execute("select count(*) from note").fetchone()[0], flush=True)
sys.exit(7)
"""


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """A folder with our command on its PATH, as in an image."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python3").symlink_to(sys.executable)
    ours = folder / "sqlitereplica"
    ours.write_text(f'#!/bin/sh\nexec {sys.executable} -m sqlitereplica "$@"\n')
    ours.chmod(0o755)
    return CommandLine(tmp_path, {"PATH": f"{folder}:{os.environ['PATH']}"})


def run(cli: CommandLine, script: str, *words: str, code: int = 0, **env: str) -> str:
    """Run a script of the examples; what it printed to standard output."""
    done = subprocess.run(
        ["sh", str(EXAMPLES / script), *words],
        cwd=cli.folder,
        env={**cli.environment, **env},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done
    return done.stdout


def test_start_script_brings_the_database_of_the_life_before(cli: CommandLine) -> None:
    """Restored if missing, replicated, and the code is that of the application."""
    (cli.folder / "app.py").write_text(APP)
    env = {"DB": "data/app.db", "REPLICA": str(cli.folder / "replica")}
    for life in (1, 2):
        (cli.folder / "data").mkdir()
        assert f"rows {life}" in run(
            cli, "start.sh", "python3", "app.py", code=7, **env
        )
        shutil.rmtree(cli.folder / "data")


def test_restore_script_keeps_what_was_there(cli: CommandLine) -> None:
    """The backup's state is back; the newer one lies beside it."""
    database = cli.folder / "app.db"
    make_app(database)
    config = "dbs: [{path: app.db, replica: {path: replica}}]"
    (cli.folder / "l.yml").write_text(config)
    # not in this process: a database that somebody has open is not replaced
    cli.process("replicate", "-once", "-config", "l.yml")
    write(database, 5)
    run(cli, "restore.sh", "l.yml", "app.db")
    assert count(database) == 10
    assert count(cli.folder / "app.db.before") == 15


def test_health_check_script(cli: CommandLine) -> None:
    """Succeeds for a daemon that is well, and only for that."""
    make_app(cli.folder / "app.db")
    text = 'addr: "127.0.0.1:0"\ndbs: [{path: app.db, replica: {path: replica}}]'
    (cli.folder / "l.yml").write_text(text)

    def is_well() -> bool:
        command = ["sh", str(EXAMPLES / "health-check.sh")]
        env = {**cli.environment, "ADDR": where}
        done = subprocess.run(
            command, env=env, check=False, capture_output=True, timeout=60
        )
        return done.returncode == 0 and b'"ok": true' in done.stdout

    with cli.background("replicate", "-config", "l.yml"):
        log = cli.folder / "log-0"
        eventually(lambda: "metrics and health on " in log.read_text(), "the port")
        where = (
            log.read_text().split("metrics and health on ")[1].split('"')[0].split()[0]
        )
        eventually(is_well, "health")
    assert not is_well()


def test_systemd_reads_the_unit(cli: CommandLine, tmp_path: Path) -> None:
    """As it stands, but for the place of the command."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze: Debian's package systemd has it")
    unit = tmp_path / SERVICE.name
    place = str(tmp_path / "bin" / "sqlitereplica")
    unit.write_text(SERVICE.read_text().replace("/usr/local/bin/sqlitereplica", place))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert unit.name not in done.stderr, done


def commands() -> Iterator[list[str]]:
    """The command lines of ours in the files that are not run here."""
    (line,) = [
        t for t in SERVICE.read_text().splitlines() if t.startswith("ExecStart=")
    ]
    yield shlex.split(line.partition("=")[2])
    for service in documents("compose.yml")[0]["services"].values():
        if "entrypoint" in service:
            yield [*service["entrypoint"], *service["command"]]
    for document in documents("kubernetes.yml"):
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        for container in [*pod.get("initContainers", []), *pod.get("containers", [])]:
            if "command" in container:
                yield [*container["command"], *container["args"]]


def documents(name: str) -> list[Any]:
    """What a file of YAML holds."""
    return list(yaml.safe_load_all((EXAMPLES / name).read_text()))


def unknown_in(words: list[str]) -> list[str]:
    """What our command line does not know."""
    parser, switches = _parser()
    return parser.parse_known_args(normalized(words, switches))[1]


def test_commands_in_the_files_are_ours() -> None:
    """Every flag is known."""
    found = list(commands())
    assert len(found) == 5
    for program, *words in found:
        assert program.rpartition("/")[2] == "sqlitereplica"
        assert unknown_in(words) == [], words
    assert unknown_in(["replicate", "-config", "f", "-other"]) == ["-other"]


def test_configurations_in_the_files_are_ours() -> None:
    """The file of the examples, and the one within Kubernetes' map."""
    (inner,) = [d for d in documents("kubernetes.yml") if d["kind"] == "ConfigMap"]
    texts = [(EXAMPLES / "litestream.yml").read_text(), inner["data"]["litestream.yml"]]
    for text in texts:
        (plan,) = build(parse_config(text, env={}), {})
        assert plan.path == "/data/app.db"


def test_dockerfile_copies_what_there_is() -> None:
    """All but the application is among the examples, and its start is our script."""
    lines = (EXAMPLES / "Dockerfile").read_text().splitlines()
    (copied,) = [line.split()[1:-1] for line in lines if line.startswith("COPY ")]
    assert [n for n in copied if not (EXAMPLES / n).exists()] == ["app.py"]
    assert 'ENTRYPOINT ["sh", "start.sh"]' in lines
