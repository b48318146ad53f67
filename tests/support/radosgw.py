"""Ceph's S3 gateway, for the tests that want a second opinion: mon, osd and radosgw.

Debian's packages: radosgw ceph-mon ceph-mgr ceph-osd ceph-common. All in memory, without
authentication among each other, on loopback ports of their own.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.servers import S3Server

__all__ = ["PACKAGES", "is_installed", "start_radosgw"]

PACKAGES = ("radosgw", "ceph-mon", "ceph-mgr", "ceph-osd", "ceph-common")
_START_SECONDS = 180.0

_CONFIG = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon}]
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 1073741824
osd class update on start = false
osd crush update on start = false
mon allow pool size one = true
mon warn on pool no redundancy = false
public network = 127.0.0.0/8
ms bind ipv6 = false
ms mon client mode = crc
run dir = {home}
admin socket = {home}/$name.asok
pid file = {home}/$name.pid
log file = {home}/$name.log
mon data = {home}/mon
osd data = {home}/osd
keyring = {home}/keyring
[client.rgw]
ms mon client mode = crc
keyring = {home}/keyring
rgw frontends = beast endpoint=127.0.0.1:{rgw} tcp_nodelay=1
rgw data = {home}/rgw
rgw enable usage log = false
rgw gc obj min wait = 0
"""


def is_installed() -> bool:
    """Whether the programs are here."""
    programs = (
        "radosgw",
        "ceph-mon",
        "ceph-osd",
        "ceph",
        "radosgw-admin",
        "monmaptool",
    )
    return all(shutil.which(program) for program in programs)


@contextmanager
def start_radosgw(home: Path) -> Iterator[S3Server]:
    """Run a gateway on an empty folder; it is killed at the end."""
    server = S3Server(_free_port())
    config = home / "ceph.conf"
    fsid = str(uuid.uuid4())
    config.write_text(
        _CONFIG.format(fsid=fsid, home=home, mon=_free_port(), rgw=server.port)
    )
    for folder in ("mon", "osd", "rgw"):
        (home / folder).mkdir()
    processes: list[subprocess.Popen[bytes]] = []

    def run(*command: str) -> str:
        done = subprocess.run(
            [command[0], "-c", str(config), *command[1:]],
            check=True,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
        )
        return done.stdout

    def start(*command: str) -> None:
        with (home / f"{command[0]}.out").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [command[0], "-c", str(config), "-f", *command[1:]],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    try:
        mon = config.read_text().split("mon host = ")[1].split("\n")[0]
        monmap = str(home / "monmap")
        subprocess.run(
            ["monmaptool", "--create", "--addv", "a", mon, "--fsid", fsid, monmap],
            check=True,
            capture_output=True,
        )
        (home / "keyring").write_text("")
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        start("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        run("ceph", "osd", "new", osd)
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        run("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default")
        start("ceph-osd", "-i", "0")
        start("radosgw", "-n", "client.rgw")
        _wait_for(server.port)
        run(
            *("radosgw-admin", "-n", "client.rgw", "user", "create", "--uid=test"),
            *("--display-name=test", f"--access-key={server.key}"),
            f"--secret-key={server.secret}",
        )
        yield server
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def _free_port() -> int:
    while True:
        port = 12_000 + secrets.randbelow(20_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "radosgw does not answer"
            time.sleep(0.2)
        else:
            return
