"""The real PocketBase beside our daemon: killed, its database lost, and back again."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commandline import CommandLine, eventually
from support.pocketbase import Load, PocketBase

CONFIG = """
socket: {{enabled: true, path: {socket}}}
dbs:
  - path: pb_data/data.db
    replica: {{path: backups/pocketbase, sync-interval: 100ms}}
"""


@pytest.fixture
def socket_path() -> Iterator[str]:
    """A short one: the path of a socket has at most 107 bytes."""
    folder = tempfile.mkdtemp(prefix="sr-")
    yield f"{folder}/s"
    shutil.rmtree(folder)


def lose(database: Path) -> None:
    """Remove a database with all that belongs to it, our metadata included."""
    found = list(database.parent.glob(f"*{database.name}*"))
    assert database in found
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_pocketbase_has_every_durable_record_after_its_database_was_lost(
    tmp_path: Path, socket_path: str
) -> None:
    """Under load both are killed and the database is removed; what was durable is back."""
    cli, server = CommandLine(tmp_path), PocketBase(tmp_path)
    (tmp_path / "l.yml").write_text(CONFIG.format(socket=socket_path))
    server.make_superuser()
    with cli.killed("replicate", "-config", "l.yml"), server:
        eventually(Path(socket_path).exists, "the socket")
        server.make_notes()
        loads = [Load(server, "one"), Load(server, "two")]
        for _ in range(4):
            time.sleep(0.3)  # let some be made; how many does not matter
            durable = loads[0].made | loads[1].made
            sync = ["sync", "pb_data/data.db", "-wait", "-timeout", "60"]
            found = cli.json(*sync, "-socket", socket_path)
            assert found["replicated_txid"] >= found["txid"] > 0
        server.kill()
    for load in loads:
        load.join()
    made = loads[0].made | loads[1].made
    assert 0 < len(durable) <= len(made)

    lose(server.database)
    cli("restore", "-config", "l.yml", "-integrity-check", "full")

    with server:
        notes = server.notes()
        assert durable.items() <= notes.items()
        # What was restored is the work of the clients and nothing else; each of them may
        # have been killed between the commit and the answer.
        assert len(notes.keys() - made.keys()) <= len(loads)
        with cli.background("replicate", "-config", "l.yml"):
            late = server.add_note("second life")
    cli("restore", "-o", "copy/pb_data/data.db", "backups/pocketbase")
    with PocketBase(tmp_path / "copy") as copy:
        assert copy.notes() == notes | {late: "second life"}
