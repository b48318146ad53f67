"""Processes that read a ledger database all the time and judge every state they see.

They stand for any program with any SQLite: ``sqlite3`` and ``apsw`` in Python, Django's ORM,
the ``sqlite3`` shell, and JavaScript (``node:sqlite``, in the Node.js that Playwright brings).
Run as a program with the path of a database and one of these names, it says ``ready``, then
the last row of each state that was whole, a line each, until its input ends.
"""

from __future__ import annotations

import functools
import os
import select
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

__all__ = ["KINDS", "Reader", "lacks"]

KINDS = ("sqlite3", "apsw", "django", "shell", "node")
_HERE = Path(__file__).parent


def lacks(kind: str) -> str:
    """Why there can be no such reader on this machine; empty if there can."""
    if kind == "shell" and shutil.which("sqlite3") is None:
        return "the sqlite3 shell is not installed"
    if kind == "node":
        code = "require('node:sqlite')"
        try:
            subprocess.run([_node(), "-e", code], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return "there is no Node.js with node:sqlite"
    return ""


def _node() -> str:
    """The program in the package of Playwright, which is there for other tests."""
    import playwright

    return str(Path(playwright.__path__[0], "driver", "node"))


class Reader:
    """The process, until its verdict."""

    def __init__(self, path: Path, kind: str = "sqlite3") -> None:
        command = [sys.executable, __file__, str(path), kind]
        if kind == "node":
            command = [_node(), str(_HERE / "ledger_reader.mjs"), str(path)]
        self.kind = kind
        self.states = self.moves = self.last = 0
        """States read so far, how often there was a new row in one, and the last row."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_HERE.parent,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            last = int(line)
            self.moves += bool(self.states) and last > self.last
            self.states, self.last = self.states + 1, last

    @property
    def is_running(self) -> bool:
        """False when it found something wrong."""
        return self._process.poll() is None

    def finish(self) -> tuple[int, int]:
        """Have it end; (states read, last row). Its assertions are this one's."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait(120)
        self._thread.join(60)
        assert code == 0, self.kind
        return self.states, self.last

    def kill(self) -> None:
        """End it, whatever happened."""
        self._process.kill()
        self._thread.join(60)
        with self._process:
            pass


# -- the process -------------------------------------------------------------------------

Rows = Iterable[tuple[int, str, bytes, str]]


def _judge(rows: Rows) -> int:
    """The last row of a ledger, which is a chain; 0 for an empty one."""
    from support.ledger import chained

    expected: tuple[int, str] | None = None
    for seq, prev, payload, found in rows:
        assert expected in (None, (seq, prev)), f"broken before {seq}"
        assert chained(prev, seq, payload) == found, f"{seq} is not what it was"
        expected = seq + 1, found
    return 0 if expected is None else expected[0] - 1


def _by_sql(db: Any, check: bool) -> int:
    """A state, in one read transaction of a connection of Python."""
    from support.ledger import _examine_chain

    db.execute("begin")
    found = _examine_chain(db)
    assert found["chain"] == "ok", found
    if check:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    db.execute("commit")
    return int(found["last"])


def _opened(path: str, kind: str) -> Callable[[bool], int]:
    """What reads one state; if told to, with SQLite's own check of all of it."""
    if kind == "sqlite3":
        db = sqlite3.connect(path, isolation_level=None, timeout=60)
        return functools.partial(_by_sql, db)
    if kind == "apsw":
        import apsw

        connection = apsw.Connection(path)
        connection.set_busy_timeout(60_000)
        return functools.partial(_by_sql, connection)
    return _by_django(path) if kind == "django" else _by_shell(path)


def _by_django(path: str) -> Callable[[bool], int]:
    """A model of Django's on the ledger, each state in one transaction."""
    import django
    from django.conf import settings

    database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": {"timeout": 60},
    }
    settings.configure(DATABASES={"default": database}, USE_TZ=True)
    django.setup()
    from django.db import connection, models, transaction

    class Row(models.Model):
        seq = models.IntegerField(primary_key=True)
        prev = models.TextField()
        payload = models.BinaryField()
        hash = models.TextField()

        class Meta:
            managed = False
            db_table = "ledger"
            app_label = "ledger"

    def read(check: bool) -> int:
        with transaction.atomic():
            rows = Row.objects.order_by("seq")
            last = _judge(rows.values_list("seq", "prev", "payload", "hash"))
            by_index = Row.objects.filter(hash__gt="").count()
            assert by_index == Row.objects.count()
            if check:
                with connection.cursor() as cursor:
                    cursor.execute("pragma integrity_check")
                    assert cursor.fetchone() == ("ok",)
        return last

    return read


def _by_shell(path: str) -> Callable[[bool], int]:
    """The ``sqlite3`` shell; what it prints is judged here."""
    shell = subprocess.Popen(
        ["sqlite3", "-batch", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    pipe, out = shell.stdin, shell.stdout
    pipe.write(".timeout 60000\n.mode list\n.separator |\n.bail on\n")

    def read(check: bool) -> int:
        say = "select seq, prev, hex(payload), hash from ledger order by seq;"
        whole = "pragma integrity_check;" if check else "select 'ok';"
        pipe.write(f"begin;\n{say}\n{whole}\ncommit;\n.print end\n")
        pipe.flush()
        lines = []
        while (line := out.readline()) != "end\n":
            assert line, "the shell ended"
            lines.append(line.rstrip("\n"))
        assert lines.pop() == "ok"
        rows = (line.split("|") for line in lines)
        return _judge(
            (int(seq), prev, bytes.fromhex(payload), found)
            for seq, prev, payload, found in rows
        )

    return read


def _main(path: str, kind: str) -> None:
    sys.path.insert(0, str(_HERE.parent))
    read = _opened(path, kind)
    states, last = 0, 0
    os.write(1, b"ready\n")
    while not (states and select.select([sys.stdin], [], [], 0)[0]):
        begun = time.monotonic()
        found = read(states % 10 == 0)
        assert found >= last, "it never goes back"
        states, last = states + 1, found
        os.write(1, b"%d\n" % last)
        # Not always in a transaction, however slow the machine: the file has to change.
        time.sleep(max(0.002, time.monotonic() - begun))


if __name__ == "__main__":
    _main(*sys.argv[1:])
