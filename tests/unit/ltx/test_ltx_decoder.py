"""Reading LTX files: what is accepted, what is refused and at which cost."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from io import BytesIO

import cramjam
import pytest
from support.ltxfiles import (
    PAGE_SIZES,
    RawFile,
    RawFrame,
    image,
    leb128,
    make_header,
    make_page,
)

from sqlitereplica.errors import ChecksumMismatchError, InvalidFileError
from sqlitereplica.ltx import (
    Decoder,
    Encoder,
    PageIndex,
    compress_bound,
    database_checksum,
    decode,
    decode_frame,
    encode,
    index_offset,
    lock_pgno,
    page_checksum,
)

FLAG = 1 << 63
LATER = make_header(min_txid=2, max_txid=2, commit=9)
LATER_PAGES = [(n, make_page(512, n)) for n in (2, 3, 7)]


class Dribble:
    """A file that gives one byte at a time, as a socket may."""

    def __init__(self, data: bytes) -> None:
        self.data = iter(data)

    def read(self, n: int, /) -> bytes:
        return bytes([byte for byte in [next(self.data, None)] if byte is not None])


def kind_of(data: bytes) -> str:
    """The kind of the error that decoding raises."""
    with pytest.raises(InvalidFileError) as caught:
        decode(data)
    return caught.value.kind


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_snapshot_is_read_back(page_size: int) -> None:
    """Header and pages of every page size come back as they were."""
    header = make_header(page_size=page_size, commit=40)
    pages = image(page_size, 40)
    assert decode(RawFile.of(header, pages).build()) == (header, pages)


def test_file_of_some_pages_is_read_back() -> None:
    """A later file holds any ascending pages, or none."""
    assert decode(encode(LATER, LATER_PAGES)) == (LATER, LATER_PAGES)
    assert decode(encode(LATER, [])) == (LATER, [])


def test_header_is_known_before_any_page() -> None:
    """The plan of a restore needs headers only."""
    decoder = Decoder(BytesIO(encode(LATER, LATER_PAGES)[:100]))
    assert decoder.header == LATER


def test_file_checksum_is_known_when_all_is_verified() -> None:
    """It is 0 until the last page has been taken and the rest was checked."""
    data = encode(LATER, LATER_PAGES)
    decoder = Decoder(BytesIO(data))
    pages = decoder.pages()
    for expected in LATER_PAGES:
        assert next(pages) == expected
    assert decoder.file_checksum == 0
    assert list(pages) == []
    assert decoder.file_checksum == int.from_bytes(data[-8:], "big")


def test_pages_can_be_read_once() -> None:
    """The file is a stream: a second pass would find nothing and look complete."""
    decoder = Decoder(BytesIO(encode(LATER, LATER_PAGES)))
    decoder.pages()
    with pytest.raises(ValueError, match="once"):
        decoder.pages()


def test_short_reads_are_put_together() -> None:
    """A file may return fewer bytes than asked for."""
    decoder = Decoder(Dribble(encode(LATER, LATER_PAGES)))
    assert list(decoder.pages()) == LATER_PAGES


@pytest.mark.parametrize("read_size", [1, 99, 1000, 1 << 20])
def test_read_size_does_not_matter(read_size: int) -> None:
    """Frames may lie across the pieces in which the file is read."""
    pages = image(1024, 60)
    header = make_header(page_size=1024, commit=60)
    decoder = Decoder(BytesIO(encode(header, pages)), read_size=read_size)
    assert list(decoder.pages()) == pages


def test_file_that_ends_at_any_byte_is_refused() -> None:
    """No part of a file passes for the whole."""
    data = encode(LATER, LATER_PAGES)
    for size in range(len(data)):
        assert kind_of(data[:size]) == "truncated", size


def test_every_flipped_bit_is_noticed_or_without_effect() -> None:
    """Only a bit of a block that still means the same page can change unnoticed."""
    data = encode(LATER, LATER_PAGES)
    unnoticed = set()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            assert decode(bytes(flipped)) == (LATER, LATER_PAGES)
        except InvalidFileError:
            continue
        unnoticed.add(bit // 8)
    blocks = PageIndex.parse(data, len(data)).values()
    inside = {at for start, size in blocks for at in range(start + 10, start + size)}
    assert unnoticed <= inside
    assert len(unnoticed) < len(data) / 20


def test_wrong_file_checksum_is_reported_with_both_values() -> None:
    """The error tells what was recorded and what was found."""
    data = bytearray(encode(LATER, LATER_PAGES))
    data[-1] ^= 1
    with pytest.raises(ChecksumMismatchError) as caught:
        decode(bytes(data))
    assert caught.value.expected == int.from_bytes(data[-8:], "big")
    assert caught.value.actual == caught.value.expected ^ 1


def test_changed_reserved_bytes_break_the_checksum() -> None:
    """Bytes without a meaning are covered as well."""
    data = bytearray(encode(LATER, LATER_PAGES))
    data[99] ^= 1
    assert kind_of(bytes(data)) == "checksum"


def frame(pgno: int, **changes: object) -> RawFrame:
    """The frame of a sample page, with changes."""
    return RawFrame(pgno, make_page(512, pgno), **changes)  # type: ignore[arg-type]


def lz4(size: int) -> bytes:
    """A block of so many bytes."""
    return bytes(cramjam.lz4.compress_block(bytes(size), store_size=False))


LOCK = lock_pgno(512)


@pytest.mark.parametrize(
    ("kind", "commit", "frames"),
    [
        ("page-order", 9, [frame(3), frame(2)]),
        ("page-order", 9, [frame(3), frame(3)]),
        ("pgno", 9, [frame(10)]),
        ("pgno", 9, [frame(2**32 - 1)]),
        ("pgno", 9, [frame(0)]),
        ("lock-page", LOCK + 1, [frame(LOCK)]),
        ("lock-page", LOCK, [frame(LOCK)]),
        ("pgno", LOCK - 1, [frame(LOCK + 1)]),
        ("page-flags", 9, [frame(2, flags=3)]),
        ("page-flags", 9, [frame(2, flags=2)]),
        ("page-flags", 9, [frame(2, flags=0x8001)]),
        ("frame-size", 9, [frame(2, size=0)]),
        ("frame-size", 9, [frame(2, size=compress_bound(512) + 1)]),
        ("frame-size", 9, [frame(2, size=2**32 - 1)]),
        ("truncated", 9, [frame(2, size=compress_bound(512))]),
        ("page-size", 9, [frame(2, payload=lz4(511))]),
        ("page-size", 9, [frame(2, payload=b"\0")]),
        ("lz4", 9, [frame(2, payload=lz4(513))]),
        ("lz4", 9, [frame(2, payload=lz4(60_000))]),
        ("lz4", 9, [frame(2, payload=b"\xff" * 100)]),
        ("lz4", 9, [frame(2, payload=lz4(512)[:-1])]),
    ],
)
def test_frame_that_breaks_a_rule_is_refused(
    kind: str, commit: int, frames: list[RawFrame]
) -> None:
    """Each rule on frames holds, the file checksum notwithstanding."""
    header = make_header(min_txid=2, max_txid=2, commit=commit)
    assert kind_of(RawFile(header.pack(), frames).build()) == kind


def test_end_of_pages_must_be_six_zeros() -> None:
    """Page number 0 with flags is no end."""
    raw = RawFile.of(LATER, LATER_PAGES)
    raw.end = bytes(4) + b"\0\x01"
    assert kind_of(raw.build()) == "pgno"


@pytest.mark.parametrize("missing", [1, 3, 5])
def test_snapshot_that_misses_a_page_is_refused(missing: int) -> None:
    """A snapshot has every page from 1 to commit, the last one too."""
    pages = [page for page in image(512, 5) if page[0] != missing]
    assert kind_of(RawFile.of(make_header(commit=5), pages).build()) == "incomplete"


@pytest.mark.parametrize("commit", [16384, 16385, 16386])
def test_snapshot_around_the_lock_page_lacks_only_that(commit: int) -> None:
    """Whether it ends before, at or behind the lock page, only that is left out."""
    header = make_header(page_size=65536, commit=commit)
    page = bytes(65536)
    numbers = [n for n in range(1, commit + 1) if n != 16385]
    data = bytearray()
    encoder = Encoder(data.extend, header)
    encoder.add((n, page) for n in numbers)
    encoder.finish()
    decoder = Decoder(BytesIO(bytes(data)))
    assert [n for n, _ in decoder.pages()] == numbers


Change = Callable[[list[tuple[int, int, int]]], list[tuple[int, int, int]]]


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e[:-1],
        lambda e: e[1:],
        lambda e: [],
        lambda e: [*e, (9, *e[-1][1:])],
        lambda e: [e[0], e[2], e[1]],
        lambda e: [(e[0][0], e[0][1] + 1, e[0][2]), *e[1:]],
        lambda e: [(e[0][0], e[0][1], e[0][2] - 1), *e[1:]],
        lambda e: [(e[0][0] - 1, *e[0][1:]), *e[1:]],
        lambda e: [(e[0][0], e[0][1] + 2**32, e[0][2]), *e[1:]],
    ],
)
def test_index_that_is_not_of_the_frames_is_refused(change: Change) -> None:
    """An index must tell of each frame its page, place and size, the checksum apart."""
    raw = RawFile.of(LATER, LATER_PAGES)
    raw.build()
    numbers = [n for entry in change(raw.entries) for n in entry]
    raw.index = b"".join(map(leb128, numbers)) + b"\0"
    assert kind_of(raw.build()) in ("index", "truncated")


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index[:-1] + b"\x80\0",
        lambda index: index[:-1],
        lambda index: index[:-1] + b"\x01",
        lambda index: index + b"\0",
        lambda index: b"\x82\0" + index[1:],
        lambda index: b"\x82" + b"\x80" * 12 + index[1:],
        lambda index: b"",
    ],
)
def test_misshapen_index_is_refused(change: Callable[[bytes], bytes]) -> None:
    """Padded numbers, a missing end or bytes behind it are not what we would write."""
    raw = RawFile.of(LATER, LATER_PAGES)
    raw.build()
    index = b"".join(leb128(n) for entry in raw.entries for n in entry) + b"\0"
    raw.index = change(index)
    assert kind_of(raw.build()) in ("index", "truncated")


@pytest.mark.parametrize("length", [0, 1, 2**63, 2**64 - 1])
def test_wrong_index_length_is_refused(length: int) -> None:
    """The length is what readers of single pages start from."""
    raw = RawFile.of(LATER, LATER_PAGES)
    raw.index_length = length
    assert kind_of(raw.build()) == "index"


def test_bytes_behind_the_trailer_are_refused() -> None:
    """The trailer is the end of the file."""
    raw = RawFile.of(LATER, LATER_PAGES)
    raw.extra = b"\0"
    assert kind_of(raw.build()) == "trailing"


def test_database_checksum_in_trailer_needs_the_flag() -> None:
    """A file that claims to have no checksums has none."""
    raw = RawFile.of(LATER, LATER_PAGES)
    raw.post_apply = FLAG
    assert kind_of(raw.build()) == "post-apply-checksum"


def litefs_file(post_apply: int) -> bytes:
    """A snapshot with Litestream's own checksum fields in use, as LiteFS writes."""
    header = bytearray(make_header(commit=3).pack())
    header[4:8] = bytes(4)
    frames = [RawFrame(*page) for page in image(512, 3)]
    return RawFile(bytes(header), frames, post_apply=post_apply).build()


def test_database_checksum_of_litefs_is_verified() -> None:
    """Where a snapshot has one in its trailer, it must be that of the pages."""
    true = database_checksum(page_checksum(*page) for page in image(512, 3))
    assert decode(litefs_file(true))[1] == image(512, 3)
    assert kind_of(litefs_file(true ^ 1)) == "checksum"
    assert kind_of(litefs_file(0)) == "post-apply-checksum"


def lz4_frames(page: bytes) -> Iterator[bytes]:
    """The page as an LZ4 frame in several variants."""
    yield bytes(cramjam.lz4.compress(page))
    for checksum in (False, True):
        for linked in (False, True):
            compressor = cramjam.lz4.Compressor(
                content_checksum=checksum, block_linked=linked
            )
            compressor.compress(page[:100])
            begin = bytes(compressor.flush())
            compressor.compress(page[100:])
            yield begin + bytes(compressor.finish())


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_legacy_frames_are_read(page_size: int) -> None:
    """Frames without a size hold an LZ4 frame, which tells where it ends."""
    page = make_page(page_size, 5)
    header = make_header(page_size=page_size, min_txid=2, max_txid=2, commit=9)
    payloads = list(lz4_frames(page))
    frames = [RawFrame(n, page, 0, None, p) for n, p in enumerate(payloads, 1)]
    frames.append(RawFrame(9, page))
    data = RawFile(header.pack(), frames).build()
    assert decode(data) == (header, [(frame.pgno, page) for frame in frames])
    for size in range(100, len(data), 1 + page_size // 512):
        assert kind_of(data[:size]) in ("truncated", "lz4")


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("lz4", b""),
        ("lz4", b"\x04\x22\x4d\x19" + bytes(600)),
        ("lz4", bytes(cramjam.lz4.compress(bytes(513)))),
        ("lz4", bytes(cramjam.lz4.compress(bytes(1 << 20)))),
        ("page-size", bytes(cramjam.lz4.compress(bytes(511)))),
        ("lz4", bytes(cramjam.lz4.compress(bytes(512)))[:-5] + b"\x01"),
        ("lz4", b"\x04\x22\x4d\x18\x80" + bytes(600)),
        ("lz4", b"\x04\x22\x4d\x18\x41" + bytes(600)),
        ("lz4", b"\x04\x22\x4d\x18\x40\x70\xdf" + b"\x01\0\0\x80a" * 600),
        ("lz4", b"\x04\x22\x4d\x18\x40\x70\xdf\xff\xff\xff\x7f" + bytes(600)),
    ],
)
def test_bad_legacy_frame_is_refused(kind: str, payload: bytes) -> None:
    """It must be a whole LZ4 frame of one page, within a bound."""
    frames = [RawFrame(2, bytes(512), 0, None, payload)]
    assert kind_of(RawFile(LATER.pack(), frames).build()) == kind


# -- frames alone ----------------------------------------------------------------------


def frame_of(page: bytes, pgno: int = 3, **wrong: int) -> bytes:
    """The frame of one page, as it lies in a file."""
    return b"".join(RawFrame(pgno, page, **wrong).parts())


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_frame_alone_is_the_page_of_its_file(page_size: int) -> None:
    """What the index leads to is the page that reading the whole file gives."""
    pages = image(page_size, 4)
    data = encode(make_header(page_size=page_size, commit=4), pages)
    index = PageIndex.parse(data, len(data))
    for pgno, page in pages:
        at, size = index[pgno]
        assert decode_frame(data[at : at + size], pgno, page_size) == page
        assert decode_frame(memoryview(data)[at : at + size], pgno, page_size) == page


def test_legacy_frame_alone_is_read() -> None:
    """A frame without a size, as early writers made them."""
    page = make_page(512, 3)
    payload = bytes(cramjam.lz4.compress(page))
    frame = b"".join(RawFrame(3, page, 0, None, payload).parts())
    assert decode_frame(frame, 3, 512) == page
    for wrong in (frame[:-1], frame + b"\0"):
        with pytest.raises(InvalidFileError):
            decode_frame(wrong, 3, 512)


def test_frame_alone_must_be_exactly_one_frame_of_its_page() -> None:
    """Another page, a part, more than one, another size of page: all are refused."""
    frame = frame_of(make_page(512, 3))
    assert decode_frame(frame, 3, 512) == make_page(512, 3)
    for wrong, kind in [
        (frame_of(make_page(512, 3), 4), "pgno"),
        (frame[:9], "truncated"),
        (frame[:-1], "frame-size"),
        (frame + b"\0", "frame-size"),
        (frame + frame, "frame-size"),
        (frame_of(make_page(512, 3), flags=2), "page-flags"),
        (frame_of(make_page(512, 3), flags=3), "page-flags"),
        (frame_of(make_page(4096, 3)), "frame-size"),
        (frame_of(bytes(1024)), "lz4"),
        (frame_of(bytes(511)), "page-size"),
        (frame_of(b"")[:10], "frame-size"),
        (frame[:10] + bytes(len(frame) - 10), "lz4"),
    ]:
        with pytest.raises(InvalidFileError) as caught:
            decode_frame(wrong, 3, 512)
        assert caught.value.kind == kind


def test_memory_does_not_depend_on_number_of_pages() -> None:
    """Neither pages nor index entries, of which there are 600 KB here, are kept."""
    commit, page = 100_000, bytes(512)
    pages = ((n, page) for n in range(1, commit + 1))
    data = encode(make_header(commit=commit), pages)
    assert len(data) - index_offset(data, len(data)) > 600_000
    gc.collect()
    tracemalloc.start()
    try:
        for _ in Decoder(BytesIO(data), read_size=1 << 16).pages():
            pass
        assert tracemalloc.get_traced_memory()[1] < 1 << 19
    finally:
        tracemalloc.stop()


def test_stated_sizes_allocate_nothing() -> None:
    """A header that claims 256 TiB costs no more than a small one."""
    header = make_header(page_size=65536, commit=2**32 - 2)
    data = RawFile.of(header, []).build()
    gc.collect()
    tracemalloc.start()
    try:
        assert kind_of(data) == "incomplete"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
