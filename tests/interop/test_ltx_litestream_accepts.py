"""LTX files and the real Litestream: it restores ours, and we read those it writes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest
from support.litestream import Litestream
from support.ltxfiles import PAGE_SIZES, RawFile, make_header

from sqlitereplica.ltx import (
    Encoder,
    Header,
    PageIndex,
    compact,
    database_checksum,
    decode,
    encode,
    format_filename,
    lock_pgno,
    page_checksum,
)

pytestmark = pytest.mark.interop

Image = dict[int, bytes]


def read_image(path: Path, page_size: int) -> Image:
    """The pages of a database that nobody has open."""
    data = path.read_bytes()
    starts = range(0, len(data), page_size)
    return {n: data[at : at + page_size] for n, at in enumerate(starts, 1)}


def history(folder: Path, page_size: int) -> list[Image]:
    """A database that grows, changes and shrinks, as it was after each step."""
    path = folder / "source.db"
    many = max(60, page_size // 40)
    steps = [
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x)",
        f"INSERT INTO t SELECT value, randomblob(400) FROM generate({many})",
        "UPDATE t SET x = zeroblob(700) WHERE id % 7 = 0",
        "DELETE FROM t WHERE id > 20",
        "INSERT INTO t SELECT value + 100, hex(value) FROM generate(90)",
    ]
    numbers = (
        "(WITH RECURSIVE g(value) AS (VALUES (1) UNION ALL SELECT value + 1 FROM g"
    )
    images = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        for step in steps:
            head, _, rest = step.partition("generate(")
            if rest:
                step = f"{head}{numbers} LIMIT {rest[:-1]}) SELECT value FROM g)"
            connection.execute(step)
            if step.startswith("DELETE"):
                connection.execute("VACUUM")
            images.append(read_image(path, page_size))
    return images


def put(replica: Path, level: int, header: Header, data: bytes) -> None:
    """Place a file where Litestream looks for it (litestream.md 2.1)."""
    folder = replica / "ltx" / str(level)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / format_filename(header.min_txid, header.max_txid)).write_bytes(data)


def files_of(images: list[Image], page_size: int) -> list[tuple[Header, bytes]]:
    """One file for each image, with what changed since the one before."""
    result = []
    before: Image = {}
    checksum = 0
    for txid, image in enumerate(images, 1):
        pre = checksum
        checksum = database_checksum(page_checksum(*page) for page in image.items())
        header = make_header(
            page_size=page_size,
            commit=len(image),
            min_txid=txid,
            max_txid=txid,
            timestamp=1_700_000_000_000 + txid,
            pre_checksum=pre,
            post_checksum=checksum,
        )
        changed = [page for page in image.items() if before.get(page[0]) != page[1]]
        result.append((header, encode(header, changed)))
        before = image
    return result


def restored(litestream: Litestream, replica: Path, *arguments: str) -> bytes:
    """What Litestream restores from a replica, having checked it with SQLite."""
    output = replica.parent / "restored.db"
    output.unlink(missing_ok=True)
    check = ("-integrity-check", "full")
    litestream.run("restore", *check, *arguments, "-o", output, replica.as_uri())
    return output.read_bytes()


def joined(image: Image) -> bytes:
    """The database file of these pages."""
    return b"".join(image.values())


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_our_files_are_restored(
    page_size: int, tmp_path: Path, litestream: Litestream
) -> None:
    """A chain in level 0 gives the last image, and each one before by its TXID."""
    images = history(tmp_path, page_size)
    assert len({len(image) for image in images}) > 1
    replica = tmp_path / "replica"
    for header, data in files_of(images, page_size):
        put(replica, 0, header, data)
    assert restored(litestream, replica) == joined(images[-1])
    middle = restored(litestream, replica, "-txid", f"{3:016x}")
    assert middle == joined(images[2])


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_our_mergers_are_restored(
    page_size: int, tmp_path: Path, litestream: Litestream
) -> None:
    """A snapshot and a compacted file give what the files they were made of gave."""
    images = history(tmp_path, page_size)
    files = [data for _, data in files_of(images, page_size)]
    replica = tmp_path / "replica"
    for level, part in ((9, files[:3]), (1, files[3:])):
        merged = bytearray()
        header = compact([BytesIO(data) for data in part], merged.extend)
        put(replica, level, header, bytes(merged))
    assert restored(litestream, replica) == joined(images[-1])


@pytest.mark.parametrize("position", [112, -30, -20, -1])
def test_litestream_refuses_what_we_refuse(
    position: int, tmp_path: Path, litestream: Litestream
) -> None:
    """The comparison is fair: a damaged file is not restored."""
    images = history(tmp_path, 512)[:1]
    [(header, data)] = files_of(images, 512)
    damaged = bytearray(data)
    damaged[position] ^= 0x40
    replica = tmp_path / "replica"
    put(replica, 0, header, bytes(damaged))
    with pytest.raises(AssertionError, match="failed"):
        restored(litestream, replica)


@pytest.mark.slow
def test_snapshot_beyond_the_lock_page_is_restored(
    tmp_path: Path, litestream: Litestream
) -> None:
    """A database of more than 1 GiB has a page of zeros in place of the lock page."""
    page_size = 65536
    commit = lock_pgno(page_size) + 2
    header = make_header(page_size=page_size, commit=commit)
    replica = tmp_path / "replica"
    put(replica, 0, header, b"")

    def page(pgno: int) -> bytes:
        return pgno.to_bytes(4, "big") * (page_size // 4)

    lock = lock_pgno(page_size)
    [target] = (replica / "ltx" / "0").iterdir()
    with target.open("wb") as file:
        encoder = Encoder(file.write, header)
        encoder.add((n, page(n)) for n in range(1, commit + 1) if n != lock)
        encoder.finish()
    output = tmp_path / "restored.db"
    litestream.run("restore", "-o", output, replica.as_uri())
    with output.open("rb") as result:
        for pgno in range(1, commit + 1):
            expected = bytes(page_size) if pgno == lock else page(pgno)
            assert result.read(page_size) == expected, pgno
        assert result.read(1) == b""
    output.unlink()  # pytest would keep the gibibyte for a while


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_files_of_litestream_are_read(
    page_size: int, tmp_path: Path, litestream: Litestream
) -> None:
    """Merging what Litestream wrote gives the bytes that it restores."""
    path, replica = tmp_path / "app.db", tmp_path / "replica"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")
        for step in range(4):
            rows = [(bytes([step]) * 300,) for _ in range(50)]
            connection.executemany("INSERT INTO t VALUES (?)", rows)
            litestream.run("replicate", "-once", path, replica.as_uri())
    names = sorted((replica / "ltx" / "0").iterdir())
    contents = [name.read_bytes() for name in names]
    assert len(contents) >= 4
    for name, data in zip(names, contents, strict=True):
        header, pages = decode(data)
        assert name.name == format_filename(header.min_txid, header.max_txid)
        assert list(PageIndex.parse(data, len(data))) == [n for n, _ in pages]
        assert header.wal_offset >= 32
        assert data[:100] == header.pack()
    merged = bytearray()
    compact([BytesIO(data) for data in contents], merged.extend)
    _, pages = decode(bytes(merged))
    assert joined(dict(pages)) == restored(litestream, replica)


def test_checksums_of_litestream_follow_our_reference(
    tmp_path: Path, litestream: Litestream
) -> None:
    """Litestream accepts a file of the builder against which the encoder is tested."""
    image = history(tmp_path, 1024)[1]
    header = make_header(page_size=1024, commit=len(image))
    replica = tmp_path / "replica"
    put(replica, 0, header, RawFile.of(header, list(image.items())).build())
    assert restored(litestream, replica) == joined(image)
