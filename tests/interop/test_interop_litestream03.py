"""Replicas of Litestream 0.3 against ``litestream restore`` of 0.3 and of 0.5."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.corpus03 import PAGE_SIZES, Corpus
from support.litestream import Litestream
from support.oldreplica import OldReplica
from support.places import Place
from support.servers import S3Server

from sqlitereplica import Replica, restore

pytestmark = pytest.mark.interop

STATEMENTS = [
    ["INSERT INTO t(v) VALUES (randomblob(20))"],
    ["INSERT INTO t(v) VALUES (randomblob(30000))"],
    ["UPDATE t SET v = randomblob(99) WHERE id % 2"],
    ["DELETE FROM t WHERE id > 2", "VACUUM"],
    [
        "BEGIN",
        "CREATE TABLE b(v)",
        "INSERT INTO b VALUES (zeroblob(60000))",
        "DELETE FROM b",
        "DROP TABLE b",
        "COMMIT",
    ],
]


def place_of(replica: Path, litestream: Litestream) -> Place:
    """A replica in a folder that both restore."""
    return Place(
        replica.parent, litestream, url=replica.as_uri(), replica=Replica(replica)
    )


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_states_are_those_that_litestream_03_restored(
    page_size: int, tmp_path: Path
) -> None:
    """The bytes that the old program made when it was asked for the same moments."""
    corpus = Corpus.unpack(tmp_path, page_size)
    target = tmp_path / "restored.db"
    wanted = [(moment["at"], moment["sha256"]) for moment in corpus.expected["moments"]]
    assert len({digest for _, digest in wanted}) > 8
    for at, digest in [*wanted, (None, corpus.expected["latest"])]:
        restore(corpus.replica, target, at=at, if_exists="replace", verify="full")
        assert hashlib.sha256(target.read_bytes()).hexdigest() == digest, at


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_states_are_those_that_litestream_05_restores(
    page_size: int, tmp_path: Path, litestream: Litestream
) -> None:
    """Latest, and just behind the time of any segment, in both generations."""
    corpus = Corpus.unpack(tmp_path, page_size)
    place = place_of(corpus.replica, litestream)
    place.latest()
    moments = zip(corpus.files(), corpus.times(), strict=True)
    # It knows no time behind the last file.
    segments = [at for path, at in moments if path.parent.name == "wal"][:-1]
    images = {place.at_time(at) for at in segments[::3]}
    assert len(images) > 5


@pytest.mark.parametrize("seed", range(4))
def test_any_history_is_restored_as_litestream_05_does(
    seed: int, tmp_path: Path, litestream: Litestream
) -> None:
    """With pages that SQLite never wrote, and WALs that end within a transaction."""
    rng = random.Random(seed)
    old = OldReplica(tmp_path, page_size=rng.choice([512, 1024, 8192]))
    place = place_of(old.replica, litestream)
    old.snapshot()
    old.segment()
    for number in range(24):
        old.commit(*rng.choice(STATEMENTS))
        if rng.random() < 0.6:
            old.segment(max(1, old.frames - rng.choice([0, 0, 0, 2])))
        if rng.random() < 0.2:
            rng.choice([old.checkpoint, old.backfill, old.snapshot])()
        if number % 6 == 5:
            place.latest()
    old.segment()
    assert place.latest() == old.image
    old.close()


@pytest.mark.s3
def test_states_on_s3_are_those_that_litestream_05_restores(
    tmp_path: Path, litestream: Litestream, s3_server: S3Server
) -> None:
    """Times are those of the uploads there; the states of each moment are the same."""
    corpus = Corpus.unpack(tmp_path, 4096)
    bucket = s3_server.make_bucket()
    place = Place.on_s3(tmp_path, litestream, s3_server, bucket, "some/old")
    files = corpus.files()
    first = len(files) // 3
    images, moments = [], []
    for part in (files[:first], files[first : 2 * first], files[2 * first :]):
        upload(s3_server.filesystem(), f"{bucket}/some/old", corpus.replica, part)
        moments.append(next_second())
        images.append(place.latest())
    assert len(set(images)) == 3
    assert [place.at_time(moment) for moment in moments[:-1]] == images[:-1]


def upload(fs: Any, root: str, replica: Path, files: Sequence[Path]) -> None:
    """Copy files of a replica, in this order."""
    for path in files:
        fs.pipe_file(f"{root}/{path.relative_to(replica)}", path.read_bytes())


def next_second() -> datetime:
    """A time later than what was stored; returns when what is stored next is later.

    The server tells whole seconds, so that a second is left in between.
    """
    begun = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    while datetime.now(UTC) < begun + timedelta(seconds=1):
        time.sleep(0.01)
    return begun
