"""Real servers with many processes, in each of which the application starts a Replicator.

Whatever the server does to them: all notes that were answered are durable, one process
replicates, another goes on when that one is killed, and the end flushes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from support.capturing import serialized
from support.library import until_noticed
from support.webserver import Clients, WebServer
from support.workers import until

from sqlitereplica import restore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

APPS = Path(__file__).parents[2] / "apps" / "shared"


class Board:
    """The application in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.code = folder, folder / "code"
        self.database, self.replica = folder / "board.db", folder / "replica"
        shutil.copytree(APPS, self.code)
        self.env = {
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(self.code), os.environ.get("PYTHONPATH")])
            ),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(folder),
            "BOARD_DATABASE": str(self.database),
            "BOARD_REPLICA": str(self.replica),
            "BOARD_RESULTS": str(folder / "results"),
        }

    def serve(self, *command: str | Path) -> WebServer:
        """The application under a server."""
        return WebServer(
            [sys.executable, *command],
            log=self.folder / "server.log",
            folder=self.folder,
            env=self.env,
        )

    def check(self, answers: list[Any]) -> None:
        """The replica is the database, with every note that was answered."""
        restore(self.replica, self.folder / "restored.db", if_exists="replace")
        restored = self.folder / "restored.db"
        assert restored.read_bytes() == serialized(self.database)
        with closing(sqlite3.connect(restored)) as connection:
            found = {row[0] for row in connection.execute("select id from note")}
        assert found >= {answer["id"] for answer in answers}


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """An empty board."""
    return Board(tmp_path)


def post(server: WebServer, path: str) -> Any:
    """Post a note."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("POST", path)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, (body, server.log)
        return json.loads(body)
    finally:
        connection.close()


def note(client: int, number: int) -> str:
    """The request of a client."""
    return f"/note/{client}-{number}"


SERVERS = {
    "gunicorn": ["-m", "gunicorn", "-b", "127.0.0.1:0", "-w", "3", "board_wsgi"],
    "uvicorn": [
        *("-m", "uvicorn", "--host", "127.0.0.1", "--port", "0"),
        *("--workers", "3", "board_asgi:application"),
    ],
}


@pytest.mark.parametrize("name", SERVERS)
def test_elected_worker_is_killed_under_load(board: Board, name: str) -> None:
    """Another worker goes on; no client of the others sees an error."""
    with board.serve(*SERVERS[name]) as server:
        with Clients(server.port, note, threads=4, again=True) as clients:
            clients.wait_for(20)
            victim = until(lambda: server.get("/status")["elected"])
            assert victim != server.process.pid
            os.kill(victim, signal.SIGKILL)
            clients.wait_for(len(clients.answered) + 20)
        assert until(lambda: server.get("/status")["elected"]) != victim
        answers = list(clients.answered.values())
        answers += [post(server, f"/lazy/{n}") for n in range(5)]
        server.terminate()
    board.check(answers)


def test_gunicorn_preloaded(board: Board) -> None:
    """The main process replicates and its forks ask it, also those made in its place."""
    command = [*SERVERS["gunicorn"][:-1], "--preload", "board_wsgi"]
    with board.serve(*command) as server:
        with Clients(server.port, note, threads=4, again=True) as clients:
            clients.wait_for(20)
            until(lambda: server.get("/status")["elected"] == server.process.pid)
            victim = next(iter(clients.answered.values()))["pid"]
            assert victim != server.process.pid
            os.kill(victim, signal.SIGKILL)
            clients.wait_for(len(clients.answered) + 20)
        # A fork that nobody has asked for anything yet takes half a second to join in.
        until(lambda: server.get("/status")["elected"] == server.process.pid)
        answers = list(clients.answered.values())
        answers += [post(server, f"/lazy/{n}") for n in range(5)]
        server.terminate()
    board.check(answers)


def uwsgi(*flags: str) -> list[str]:
    """The command of uWSGI with three workers."""
    program = shutil.which("uwsgi", path=sysconfig.get_path("scripts"))
    assert program is not None
    command = (
        "--http-socket=127.0.0.1:0 --master --processes=3 --need-app --die-on-term"
    )
    return [program, *command.split(), "--module=board_wsgi:application", *flags]


def test_uwsgi_loads_the_application_in_each_worker(board: Board) -> None:
    """They elect one of them, and another when that one is killed."""
    with board.serve(*uwsgi("--lazy-apps")) as server:
        with Clients(server.port, note, threads=6, again=True) as clients:
            until(lambda: len({a["pid"] for a in [*clients.answered.values()]}) == 3)
            victim = until(lambda: server.get("/status")["elected"])
            assert victim != server.process.pid
            os.kill(victim, signal.SIGKILL)
            clients.wait_for(len(clients.answered) + 20)
            until(lambda: len({a["pid"] for a in [*clients.answered.values()]}) == 4)
        assert until(lambda: server.get("/status")["elected"]) != victim
        answers = list(clients.answered.values())
        answers += [post(server, f"/lazy/{n}") for n in range(5)]
        server.terminate()
    board.check(answers)


def test_uwsgi_forks_as_python_does(board: Board) -> None:
    """With its option for that: the main process replicates, and the workers ask it."""
    with board.serve(*uwsgi("--py-call-uwsgi-fork-hooks")) as server:
        with Clients(server.port, note, threads=4, again=True) as clients:
            clients.wait_for(20)
            until(lambda: server.get("/status")["elected"] == server.process.pid)
            victim = next(iter(clients.answered.values()))["pid"]
            assert victim != server.process.pid
            os.kill(victim, signal.SIGKILL)
            clients.wait_for(len(clients.answered) + 20)
        answers = list(clients.answered.values())
        answers += [post(server, f"/lazy/{n}") for n in range(5)]
        server.terminate()
    board.check(answers)


def test_uwsgi_that_forks_behind_our_back_is_refused(board: Board) -> None:
    """At once and with the options that help, not by workers that wait for ever."""
    done = subprocess.run(
        [sys.executable, *uwsgi()],
        check=False,
        capture_output=True,
        cwd=board.folder,
        env={**os.environ, **board.env},
        text=True,
        timeout=90,
    )
    assert done.returncode != 0
    assert "DatabaseStateError" in done.stderr and "--lazy-apps" in done.stderr
    assert not board.replica.exists()


def reloaded(server: WebServer, code: Path) -> int:
    """Change a file until it is noticed; the new port."""
    ports = re.compile(r"http://127\.0\.0\.1:(\d+)/")
    before = len(ports.findall(server.log))
    until_noticed(
        lambda: code.write_text(code.read_text() + "# changed\n"),
        lambda: len(ports.findall(server.log)) > before,
        lambda: server.log,
    )
    return int(ports.findall(server.log)[-1])


def test_runserver_with_its_reloader(board: Board) -> None:
    """Two processes, one of which is replaced whenever a file changes, and then killed."""
    with board.serve(
        board.code / "board_django.py", "runserver", "127.0.0.1:0"
    ) as server:
        answers = [post(server, f"/note/{n}") for n in range(3)]
        (first,) = {answer["pid"] for answer in answers}
        assert first != server.process.pid
        assert server.get("/status")["elected"] in (first, server.process.pid)
        server.port = reloaded(server, board.code / "board.py")
        answers.append(post(server, "/note/reloaded"))
        assert answers[-1]["pid"] not in (first, server.process.pid)
        answers += [post(server, f"/lazy/{n}") for n in range(5)]
        server.terminate()
    board.check(answers)


def test_celery_prefork(board: Board) -> None:
    """The worker's main process replicates, its forks ask it; each makes way for others."""
    command = ["-m", "celery", "-A", "board_celery", "worker", "-P", "prefork"]
    command += ["-c", "2", "--max-tasks-per-child", "4", "-l", "INFO"]
    log = board.folder / "celery.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, *command],
            cwd=board.folder,
            env={**os.environ, **board.env},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    results = board.folder / "results"
    try:
        until(lambda: len(list(results.glob("*.json"))) == 16 or worker.poll())
        worker.terminate()
        assert worker.wait(60) == 0, log.read_text()
    finally:
        try:
            os.killpg(worker.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all ended already
        worker.wait()
    answers = [json.loads(result.read_text()) for result in results.glob("*.json")]
    assert {answer["elected"] for answer in answers} == {worker.pid}, log.read_text()
    assert len({answer["pid"] for answer in answers} - {worker.pid}) >= 4
    board.check(answers)
