"""LZ4 frames: every rule of the format, one by one."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.oldreplica import frame, xxh32

from sqlitereplica.errors import ChecksumMismatchError, InvalidFileError
from sqlitereplica.restore.lz4 import MOST_EXPANSION, decode_frame

CONTENT = random.Random(1).randbytes(100_000) + bytes(200_000)


class Dribble(io.RawIOBase):
    """A reader that gives no more than a few bytes at once."""

    def __init__(self, data: bytes, most: int) -> None:
        self._data, self._most = io.BytesIO(data), most

    def read(self, size: int = -1) -> bytes:
        """Fewer bytes than asked for."""
        return self._data.read(min(size, self._most))


def decode(data: bytes) -> bytes:
    """The content of a frame."""
    return b"".join(decode_frame(io.BytesIO(data)))


def refusal(data: bytes) -> str:
    """The kind of the error that a file ends with."""
    with pytest.raises(InvalidFileError) as caught:
        decode(data)
    return caught.value.kind


@pytest.mark.parametrize("block_size", [64 << 10, 256 << 10, 1 << 20, 4 << 20])
@pytest.mark.parametrize("content", [b"", b"x", CONTENT], ids=["none", "one", "much"])
def test_content_comes_back(content: bytes, block_size: int) -> None:
    """With blocks that are compressed and blocks that are stored, of any size."""
    data = frame(content, block_size=block_size)
    assert decode(data) == bytes(cramjam.lz4.decompress(data)) == content


def test_content_comes_in_pieces_of_a_block() -> None:
    """Memory is bounded by the size of a block, not by that of the content."""
    sizes = [len(piece) for piece in decode_frame(io.BytesIO(frame(CONTENT)))]
    assert sizes == [65536] * 4 + [len(CONTENT) - 4 * 65536]


@given(content=st.binary(max_size=300), most=st.integers(1, 40))
def test_reader_may_give_few_bytes(content: bytes, most: int) -> None:
    """A source gives what it has."""
    assert b"".join(decode_frame(Dribble(frame(content), most))) == content


@given(content=st.binary(max_size=4000))
def test_checksum_is_xxhash(content: bytes) -> None:
    """What stands in the place of the checksum is checked by its definition."""
    data = frame(content)[:-4] + xxh32(content).to_bytes(4, "little")
    assert decode(data) == content


def test_wrong_checksum_is_told() -> None:
    """The last four bytes are those of the content, or it is not the content."""
    data = frame(CONTENT)
    with pytest.raises(ChecksumMismatchError) as caught:
        decode(data[:-1] + bytes([data[-1] ^ 1]))
    assert caught.value.actual == xxh32(CONTENT)


def test_every_cut_is_told() -> None:
    """A file that ends too soon is never taken for a whole one."""
    data = frame(bytes(70_000) + b"abc" * 9)
    for end in range(len(data)):
        assert refusal(data[:end]) == "truncated", end


def test_bytes_behind_the_end_are_told() -> None:
    """One frame a file: what follows is of something else."""
    data = frame(b"content")
    assert refusal(data + b"\0") == "trailing"
    assert refusal(data + data) == "trailing"


@given(content=st.binary(min_size=50, max_size=500), data=st.data())
def test_changed_byte_is_told_or_changes_nothing(
    content: bytes, data: st.DataObject
) -> None:
    """No byte can be changed so that other content comes out."""
    changed = bytearray(frame(content))
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        found = decode(bytes(changed))
    except InvalidFileError:
        return
    assert found == content and at == 6  # the descriptor's checksum guards nothing else


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "truncated"),
        (b"PK\3\4" + bytes(60), "magic"),
        (b"age-encryption.org/v1\n-> X25519 abc\n", "encrypted"),
        (b"\x50\x2a\x4d\x18" + bytes(9), "magic"),  # a skippable frame
        (b"\x04\x22\x4d\x18\xa4\x40\0" + bytes(8), "lz4"),  # another version
        (b"\x04\x22\x4d\x18\x65\x40\0" + bytes(8), "lz4"),  # a dictionary
        (b"\x04\x22\x4d\x18\x64\x30\0" + bytes(8), "lz4"),  # no such size of blocks
        (b"\x04\x22\x4d\x18\x44\x40\0" + bytes(8), "lz4"),  # linked blocks
        (b"\x04\x22\x4d\x18\x60\x40\0" + bytes(4), "lz4"),  # no checksum
    ],
)
def test_what_litestream_does_not_write_is_refused(data: bytes, kind: str) -> None:
    """Each for its own reason."""
    assert refusal(data) == kind


def test_optional_fields_are_understood() -> None:
    """The size of the content, and checksums of blocks."""
    plain = frame(b"content")
    sized = b"\x04\x22\x4d\x18\x6c\x40" + (7).to_bytes(8, "little") + plain[6:]
    assert decode(sized) == b"content"
    assert refusal(sized.replace(b"\7" + bytes(7), b"\6" + bytes(7), 1)) == "lz4"
    checked = b"\x04\x22\x4d\x18\x74" + plain[5:-8] + b"\1\2\3\4" + plain[-8:]
    assert decode(checked) == b"content"


def blocks(size: int) -> Iterator[bytes]:
    """Compressed blocks that are larger, each, than the frame says they may be."""
    yield bytes(cramjam.lz4.compress_block(bytes(size), store_size=False))
    yield bytes(size)


@pytest.mark.parametrize("stored", [False, True])
def test_block_cannot_be_larger_than_the_frame_says(stored: bool) -> None:
    """Neither as it is stored nor as it comes out: that bounds the memory."""
    block = list(blocks(65537))[stored]
    size = len(block) | (1 << 31 if stored else 0)
    data = b"\x04\x22\x4d\x18\x64\x40\0" + size.to_bytes(4, "little") + block
    assert refusal(data + bytes(8)) == "lz4"


def test_nothing_expands_more_than_is_said() -> None:
    """The bound on what a frame can become is that of the format."""
    data = frame(bytes(8 << 20), block_size=4 << 20)
    assert (8 << 20) / len(data) <= MOST_EXPANSION
