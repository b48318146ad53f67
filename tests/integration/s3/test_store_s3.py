"""The store on S3: s3fs over HTTP to a real server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.proxy import Proxy
from support.s3stores import NAME, TIME, file, open_store, put, through

from sqlitereplica.errors import AnotherWriterError, StoreError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.store import LTXStore

if TYPE_CHECKING:
    from support.servers import S3Server

pytestmark = pytest.mark.s3


# -- what is stored, and where ---------------------------------------------------------


def test_what_was_put_is_listed_and_read_back(store: LTXStore) -> None:
    """A round trip over HTTP, in several levels."""
    assert store.list_all() == []
    assert store.list_level(0) == []
    for level, txid in [(9, 1), (0, 2), (0, 1), (1, 1)]:
        put(store, txid, level)
    names = [(f.level, f.min_txid) for f in store.list_all()]
    assert names == [(0, 1), (0, 2), (1, 1), (9, 1)]
    assert [f.min_txid for f in store.list_level(0, min_txid=2)] == [2]
    first = store.list_level(0)[0]
    assert first.size == len(file(1)) and store.get(first) == file(1)
    with store.open_file(first) as reader:
        assert reader.read(1 << 20) == file(1)


def test_keys_are_those_of_litestream(
    s3_server: S3Server, store: LTXStore, bucket: str, path: str
) -> None:
    """``<path>/<level as four hex digits>/<name>``, as the server itself lists them."""
    put(store, 1)
    put(store, 1, level=9)
    found = s3_server.filesystem().find(f"{bucket}/{path}")
    assert found == [f"{bucket}/{path}/000{n}/{NAME}" for n in (0, 9)]


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (1_700_000_000_000, "2023-11-14T22:13:20Z"),
        (1_700_000_000_120, "2023-11-14T22:13:20.12Z"),
        (1_700_000_000_007, "2023-11-14T22:13:20.007Z"),
    ],
)
def test_time_is_stored_as_litestream_does(
    s3_server: S3Server,
    store: LTXStore,
    bucket: str,
    path: str,
    timestamp: int,
    text: str,
) -> None:
    """HEAD answers with ``litestream-timestamp`` in Go's RFC3339Nano."""
    put(store, timestamp=timestamp)
    head = s3_server.filesystem().call_s3(
        "head_object", Bucket=bucket, Key=f"{path}/0000/{NAME}"
    )
    assert head["Metadata"] == {"litestream-timestamp": text}


def test_accurate_times_are_those_of_the_headers(store: LTXStore) -> None:
    """A listing has the time of the upload; ``accurate`` has the file's own."""
    put(store, 1, timestamp=TIME)
    put(store, 2, timestamp=TIME + 1)
    assert [f.timestamp for f in store.list_level(0, accurate=True)] == [TIME, TIME + 1]
    assert [f.timestamp for f in store.list_all(accurate=True)] == [TIME, TIME + 1]
    uploaded = store.list_level(0)[0].timestamp
    assert abs(uploaded - time.time() * 1000) < 600_000


def test_ranges_are_ranges(store: LTXStore) -> None:
    """Any part of a file can be read, and an empty part costs no request."""
    data = bytes(range(256)) * 40
    info = store.put(0, 1, 1, data, timestamp=TIME)
    for start, end in [
        (0, 1),
        (1, 10_239),
        (255, 257),
        (10_239, 10_240),
        (10_000, None),
    ]:
        assert store.get(info, start, end) == data[start:end]
    before = store.requests["get"]
    assert store.get(info, 7, 7) == b""
    assert store.requests["get"] == before + 1


def test_file_that_is_shorter_than_its_listing_says_is_an_error(
    store: LTXStore,
) -> None:
    """Fewer bytes than the listing promised are not handed on as if they were all."""
    info = put(store)
    longer = FileInfo(0, 1, 1, info.size + 10, TIME)
    with pytest.raises(StoreError) as caught:
        store.get(longer)
    assert caught.value.kind == "short"


def test_delete_takes_missing_files_in_its_stride(store: LTXStore) -> None:
    """Deleted files are gone from reads and lists; deleting twice is fine."""
    info = put(store)
    store.delete([info])
    store.delete([info])
    assert store.list_all() == []
    with pytest.raises(StoreError) as caught:
        store.get(info)
    assert caught.value.kind == "missing" and not caught.value.transient


def test_foreign_objects_are_not_listed(
    s3_server: S3Server, store: LTXStore, bucket: str, path: str
) -> None:
    """Other names, other levels, replicas below and beside: none of that is ours."""
    put(store)
    client = s3_server.filesystem()
    for key in (
        f"{path}/0000/readme.txt",
        f"{path}/000a/{NAME}",
        f"{path}/0000/deeper/{NAME}",
        f"{path}/below/0000/{NAME}",
        f"{path}-beside/0000/{NAME}",
        f"{path}/lock.json",
    ):
        client.pipe_file(f"{bucket}/{key}", b"?")
    assert [f.size for f in store.list_all()] == [len(file())]
    assert [f.size for f in store.list_level(0)] == [len(file())]


def test_more_files_than_fit_on_one_page_are_listed(
    s3_server: S3Server, bucket: str, path: str
) -> None:
    """S3 lists 1000 keys at a time."""
    client = s3_server.filesystem()
    keys = [f"{bucket}/{path}/0000/{n:016x}-{n:016x}.ltx" for n in range(1, 1106)]
    client.pipe(dict.fromkeys(keys, b"?"))
    store = open_store(s3_server, s3_server.url(bucket, path))
    assert [f.min_txid for f in store.list_level(0)] == list(range(1, 1106))
    assert len(store.list_all()) == 1105


# -- create-only -----------------------------------------------------------------------


def test_putting_the_same_bytes_again_succeeds(store: LTXStore) -> None:
    """It is what follows an answer that was lost."""
    assert put(store) == put(store)


def test_other_bytes_under_a_name_are_another_writer(store: LTXStore) -> None:
    """Of the same size or not: the name keeps what it had."""
    info = put(store)
    for data in (file(fill=2), b"short"):
        with pytest.raises(AnotherWriterError):
            store.put(0, 1, 1, data, timestamp=TIME)
    assert store.get(info) == file()


def test_one_of_many_racing_writers_wins(
    s3_server: S3Server, bucket: str, path: str
) -> None:
    """The server decides, so two processes that start together cannot both go on."""
    url = s3_server.url(bucket, path)

    def race(fill: int) -> bool:
        try:
            put(open_store(s3_server, url), fill=fill)
        except AnotherWriterError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(race, range(1, 5))) == 1


@pytest.mark.parametrize("lost", [1, 2])
def test_put_whose_answer_was_lost_is_recognized(
    s3_server: S3Server, proxy: Proxy, bucket: str, path: str, lost: int
) -> None:
    """T23: the next try meets our own file; comparing the bytes tells."""
    store = through(proxy, s3_server, bucket, path)
    proxy.lose_answers = lost
    info = put(store)
    assert proxy.lost == lost
    assert store.get(info) == file()


def test_lost_answer_does_not_hide_another_writer(
    s3_server: S3Server, proxy: Proxy, store: LTXStore, bucket: str, path: str
) -> None:
    """Refused, with the refusal lost: the next try still finds other bytes."""
    put(store, fill=2)
    proxy.lose_answers = 1
    with pytest.raises(AnotherWriterError):
        put(through(proxy, s3_server, bucket, path))
    assert store.get(store.list_level(0)[0]) == file(fill=2)


def test_reads_survive_connections_that_end(
    s3_server: S3Server, proxy: Proxy, store: LTXStore, bucket: str, path: str
) -> None:
    """Lists and reads are tried again."""
    put(store)
    other = through(proxy, s3_server, bucket, path)
    proxy.losing = re.compile("^GET ")
    proxy.lose_answers = 1
    infos = other.list_all()
    proxy.lose_answers = 1
    assert other.get(infos[0]) == file()
    assert proxy.lost == 2


# -- large files -----------------------------------------------------------------------

LARGE = textwrap.dedent("""
    import sys
    from pathlib import Path
    from support.memory import peak_memory
    from sqlitereplica.errors import AnotherWriterError
    from sqlitereplica.store import LTXStore

    url, key, secret, path = sys.argv[1:]
    store = LTXStore.open(url, storage_options={"key": key, "secret": secret})
    store.list_all()
    before = peak_memory()
    store.put(9, 1, 7, Path(path), timestamp=1_700_000_000_120)
    store.put(9, 1, 7, Path(path), timestamp=1_700_000_000_120)
    with open(path, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    try:
        store.put(9, 1, 7, Path(path), timestamp=1)
    except AnotherWriterError:
        print(peak_memory() - before)
""")


MANY = textwrap.dedent("""
    import sys
    from support.memory import peak_memory
    from sqlitereplica.store import LTXStore

    url, key, secret = sys.argv[1:]
    stores, peaks = [], []
    for n in range(6):
        stores.append(LTXStore.open(url, storage_options={"key": key, "secret": secret}))
        stores[-1].list_all()
        peaks.append(peak_memory())
    print(peaks[-1] - peaks[0])
""")


def test_many_stores_share_what_is_known_of_s3(
    s3_server: S3Server, bucket: str, path: str
) -> None:
    """botocore's description takes 15 MiB: for a hundred databases it is read once."""
    url = s3_server.url(bucket, path)
    argv = [sys.executable, "-c", MANY, url, s3_server.key, s3_server.secret]
    done = subprocess.run(
        argv, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert int(done.stdout) < 20 << 20  # it was 75 MiB


@pytest.mark.slow
def test_large_file_goes_up_in_parts_in_little_memory(
    s3_server: S3Server, store: LTXStore, bucket: str, path: str, tmp_path: Path
) -> None:
    """Over 100 MiB: whole, with its time, create-only, and compared in pieces."""
    size = (100 << 20) + 12_345
    source = tmp_path / "large"
    noise = os.urandom(1 << 20)
    with source.open("wb") as out:
        for n in range(101):
            out.write(n.to_bytes(8, "big") + noise[8:])
        out.truncate(size)
    url = s3_server.url(bucket, path)
    argv = [sys.executable, "-c", LARGE, url, s3_server.key, s3_server.secret]
    done = subprocess.run(
        [*argv, str(source)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    print(f"{int(done.stdout) / (1 << 20):.1f} MiB more at its peak")
    assert int(done.stdout) < 90 << 20
    info = store.list_level(9)[0]
    assert info.size == size
    for n in range(0, 101, 4):
        at = (n << 20) - 4
        wanted = noise[-4:] + n.to_bytes(8, "big")
        assert store.get(info, max(at, 0), at + 12) == wanted[-12 - min(at, 0) :][:12]
    head = s3_server.filesystem().call_s3(
        "head_object", Bucket=bucket, Key=f"{path}/0009/{info.name}"
    )
    assert head["Metadata"] == {"litestream-timestamp": "2023-11-14T22:13:20.12Z"}
    store.delete([info])
