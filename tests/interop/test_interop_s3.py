"""S3 as the replica: Litestream restores what we wrote, and we what it wrote."""

from __future__ import annotations

import json
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.capturing import make_database, serialized
from support.histories import fill, steps
from support.litestream import Litestream
from support.places import Place, only_litestream_checkpoints
from support.recording import START, Recording
from support.servers import S3Server

from sqlitereplica import restore
from sqlitereplica.restore.plan import reachable_txids, to_datetime

pytestmark = [pytest.mark.interop, pytest.mark.s3]

MILLISECOND = timedelta(milliseconds=1)


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> str:
    """A bucket for all tests here; each has a path of its own."""
    return s3_server.make_bucket()


@pytest.fixture
def place(
    tmp_path: Path, litestream: Litestream, s3_server: S3Server, bucket: str
) -> Place:
    """A database and its replica on S3."""
    return Place.on_s3(tmp_path, litestream, s3_server, bucket, f"some/{tmp_path.name}")


@pytest.mark.parametrize("page_size", [512, 65536])
def test_every_state_that_we_wrote_is_restored(page_size: int, place: Place) -> None:
    """Latest and by TXID; level 9 and level 0."""
    images = {}
    connection = make_database(place.database, page_size=page_size, auto_vacuum=1)
    with closing(connection), place.ours() as replicator:
        for step in steps(connection, page_size):
            replicator.sync()
            images[replicator.status().txid] = serialized(place.database)
            if step == "schema":
                replicator.snapshot()
    # One each, and more where the interval ended while a step was under way.
    txids = sorted(images)
    assert len(txids) == 7
    assert place.levels() == {0, 9}
    assert place.latest() == images[txids[-1]]
    for txid in (txids[0], txids[2], txids[5]):
        assert place.at_txid(txid) == images[txid]


def test_times_are_those_of_the_metadata(
    tmp_path: Path, litestream: Litestream, place: Place
) -> None:
    """Litestream takes ``-timestamp`` from the metadata of our objects, to the millisecond."""
    made = Recording(place.database, place.replica.open())
    made.commit("create table t(v)")
    for value in range(4):
        made.commit(f"insert into t values({value})")
    made.close()
    config = tmp_path / "litestream.yml"
    dbs = [{"path": str(place.database), "replica": {"url": place.url}}]
    config.write_text(json.dumps({"dbs": dbs}))
    start = datetime.fromtimestamp(START / 1000, UTC)
    for seconds in (2, 4):
        for extra, txid in ((0, seconds - 1), (1, seconds)):
            at = start + timedelta(seconds=seconds, milliseconds=extra)
            output = tmp_path / "theirs.db"
            moment = ["-timestamp", at.isoformat(timespec="milliseconds")]
            arguments = ["-config", str(config), "-force", "-o", str(output), *moment]
            litestream.run("restore", *arguments, str(place.database), **place.env)
            assert output.read_bytes() == made.images[txid], at
            restore(place.replica, tmp_path / "ours.db", at=at, if_exists="replace")
            assert (tmp_path / "ours.db").read_bytes() == made.images[txid], at


def test_objects_look_like_those_of_litestream(
    tmp_path: Path, litestream: Litestream, s3_server: S3Server, bucket: str
) -> None:
    """The same keys and the same metadata, which name the time of the header."""
    found = []
    for tool in ("ours", "theirs"):
        folder = tmp_path / tool
        folder.mkdir()
        place = Place.on_s3(folder, litestream, s3_server, bucket, f"look/{tool}")
        with closing(make_database(place.database)):
            if tool == "ours":
                with place.ours() as replicator:
                    replicator.sync()
            else:
                place.once()
        fs = s3_server.filesystem()
        root = f"{bucket}/look/{tool}"
        keys = sorted(fs.find(root))
        [file, *_] = place.files()
        [metadata] = [fs.metadata(key) for key in keys[:1]]
        [(name, value)] = metadata.items()
        assert datetime.fromisoformat(value) == to_datetime(file.timestamp)
        assert value.endswith("Z")
        found.append((name, keys[0].removeprefix(root)))
    assert found[0] == found[1]
    assert found[0][1] == "/0000/0000000000000001-0000000000000001.ltx"


def test_levels_of_a_litestream_daemon_are_restored(place: Place) -> None:
    """Compacted and with a snapshot, by TXID and by time, the same bytes."""
    busy = {
        "levels": [{"interval": "1s"}],
        "snapshot": {"interval": "2s", "retention": "1h"},
    }
    with closing(make_database(place.database)) as connection:
        only_litestream_checkpoints(connection)
        with place.theirs(**busy) as daemon:
            deadline = time.monotonic() + 80
            while place.levels() < {0, 1, 9} and time.monotonic() < deadline:
                fill(connection, 10)
                daemon.sync()
        place.agree()
    assert place.levels() == {0, 1, 9}
    files = place.files()
    for txid in reachable_txids(files)[::5]:
        place.at_txid(txid)


def test_large_files_go_both_ways(place: Place) -> None:
    """Several parts in an upload, several ranges in a download."""
    with closing(make_database(place.database)) as connection:
        fill(connection, 12, 1 << 20)
        with place.ours() as replicator:
            replicator.sync()
            fill(connection, 7, 1 << 20)
        place.agree()
        fill(connection, 7, 1 << 20)
        place.once()
        place.agree()
    assert sum(file.size > 7 << 20 for file in place.files()) >= 3
