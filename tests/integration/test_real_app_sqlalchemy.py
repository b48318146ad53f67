"""An application of async SQLAlchemy under uvicorn, all answers of which are durable."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support.capturing import serialized
from support.webserver import Clients, WebServer

from sqlitereplica import restore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

APPS = Path(__file__).parents[1] / "apps"


def serve(folder: Path) -> WebServer:
    """The wallet under uvicorn."""
    command = ["-m", "uvicorn", "--host", "127.0.0.1", "--port", "0"]
    paths = [str(APPS), os.environ.get("PYTHONPATH")]
    return WebServer(
        [sys.executable, *command, "--no-access-log", "wallet:app"],
        log=folder / "uvicorn.log",
        folder=folder,
        env={
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "WALLET_DATABASE": str(folder / "wallet.db"),
            "WALLET_REPLICA": str(folder / "replica"),
        },
    )


def check(database: Path, clients: Clients) -> None:
    """No money was made or lost, and every transfer that was answered is there."""
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        accounts = connection.execute("select count(*), sum(money) from account")
        assert accounts.fetchone() == (10, 10_000)
        found = dict(connection.execute("select name, id from transfer"))
    for path, answer in clients.answered.items():
        assert found[path.removeprefix("/transfer/")] == answer["id"]


def test_answered_transfers_survive_sigkill_and_the_loss_of_the_machine(
    tmp_path: Path,
) -> None:
    """Each commit of a session waited: whatever was answered is in the replica."""
    database, restored = tmp_path / "wallet.db", tmp_path / "restored.db"
    with serve(tmp_path) as server:
        plain = Clients(server.port, lambda c, n: f"/transfer/{c}-{n}", threads=6)
        with plain as clients:
            clients.wait_for(60)
            server.kill()
    restore(tmp_path / "replica", restored, verify="full")
    check(restored, clients)

    for path in tmp_path.glob("wallet.db*"):
        path.unlink()
    with serve(tmp_path) as server:
        before = server.get("/status")
        assert (before["total"], before["state"]) == (10_000, "running")
        more = Clients(server.port, lambda c, n: f"/transfer/later-{c}-{n}", threads=3)
        with more as later:
            later.wait_for(20)
        server.terminate()
    restore(tmp_path / "replica", restored, if_exists="replace", verify="full")
    check(restored, clients)
    check(restored, later)
    assert restored.read_bytes() == serialized(database)
