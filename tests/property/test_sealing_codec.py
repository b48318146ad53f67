"""Encrypted objects, whatever is done to their bytes: the content, or an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlitereplica.errors import EncryptionError, TamperedError
from sqlitereplica.store.sealedform import (
    CHUNK,
    HEADER,
    MAGIC,
    SLOTS,
    TAG,
    content_size,
    object_size,
)
from sqlitereplica.store.sealing import (
    SEED,
    Identity,
    Recipient,
    SharedKey,
    new_object,
    open_object,
    public_key,
)

pytestmark = pytest.mark.property

IDENTITY, OTHER = Identity(b"i" * 32), Identity(b"j" * 32)
SHARED = SharedKey(b"k" * 32)
WRITERS = [Recipient(public_key(IDENTITY.private)), SHARED]
STEP = CHUNK + TAG

sizes = st.one_of(
    st.integers(0, 300),
    st.builds(
        lambda n, off: max(0, n * CHUNK + off), st.integers(1, 3), st.integers(-2, 2)
    ),
)


def pack(content: bytes, name: str = "name", seed: bytes = b"s" * SEED) -> bytes:
    """The whole object."""
    sealed = new_object(WRITERS, name, seed)
    return sealed.header + sealed.seal(0, content, ends=True)


def unpack(
    data: bytes, name: str = "name", reader: Identity | SharedKey = SHARED
) -> bytes:
    """The whole content."""
    sealed = open_object(data[:HEADER], [reader], name)
    return sealed.open(0, data[HEADER:], ends=True)


def content_of(size: int) -> bytes:
    """Content in which no two chunks are the same."""
    return bytes((i * 7 + i // 251) % 256 for i in range(size))


@given(sizes)
def test_content_comes_back_for_each_reader(size: int) -> None:
    """Whoever is meant gets the content, and its size follows from that of the object."""
    content = content_of(size)
    packed = pack(content)
    assert len(packed) == object_size(size)
    assert content_size(len(packed)) == size
    assert unpack(packed) == unpack(packed, reader=IDENTITY) == content


@given(st.integers(0, 10 * STEP))
def test_size_of_any_object_is_told(size: int) -> None:
    """No size is refused by a listing, and none becomes that of a larger object."""
    found = content_size(size)
    if size < HEADER + TAG:
        assert found == 1, "who reads it is told"
    else:
        assert 0 <= object_size(found) <= size


@given(sizes, st.data())
def test_any_flip_is_refused(size: int, data: st.DataObject) -> None:
    """One bit anywhere, in header, slots, chunks or tags, and it does not open."""
    packed = bytearray(pack(content_of(size)))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= 1 << data.draw(st.integers(0, 7))
    for reader in (SHARED, IDENTITY):
        with pytest.raises((EncryptionError, TamperedError)):
            unpack(bytes(packed), reader=reader)


@given(sizes, st.data())
def test_any_cut_is_refused(size: int, data: st.DataObject) -> None:
    """No beginning of an object opens, one that ends with a chunk neither."""
    packed = pack(content_of(size))
    end = data.draw(
        st.one_of(
            st.integers(0, len(packed) - 1),
            st.sampled_from(range(HEADER, len(packed), STEP)),
        )
    )
    with pytest.raises((EncryptionError, TamperedError)):
        unpack(packed[:end])


@given(sizes, st.binary(min_size=1, max_size=50))
def test_any_extension_is_refused(size: int, more: bytes) -> None:
    """Nothing can be added behind the end."""
    with pytest.raises(TamperedError):
        unpack(pack(content_of(size)) + more)


@given(st.permutations([0, 1, 2]))
def test_chunks_in_another_order_are_refused(order: list[int]) -> None:
    """Each chunk opens in its own place only."""
    packed = pack(content_of(3 * CHUNK))
    chunks = [packed[HEADER + i * STEP : HEADER + (i + 1) * STEP] for i in order]
    moved = packed[:HEADER] + b"".join(chunks)
    if order == [0, 1, 2]:
        assert unpack(moved) == content_of(3 * CHUNK)
        return
    with pytest.raises(TamperedError):
        unpack(moved)


@given(st.binary(max_size=99), st.binary(max_size=99))
def test_parts_of_two_objects_do_not_mix(one: bytes, two: bytes) -> None:
    """Another name, another header, other chunks: nothing of it opens."""
    first, second = pack(one), pack(two, seed=b"t" * SEED)
    for mixed in (first[:HEADER] + second[HEADER:], second[:HEADER] + first[HEADER:]):
        with pytest.raises(TamperedError):
            unpack(mixed)
    with pytest.raises(TamperedError):
        unpack(first, name="other")


@given(st.binary(max_size=600))
def test_noise_is_refused(noise: bytes) -> None:
    """Whatever is there, the errors are ours."""
    for data in (noise, MAGIC + noise):
        with pytest.raises((EncryptionError, TamperedError)):
            unpack(data)


def test_reader_that_is_not_meant_is_told_for_whom_it_is() -> None:
    """The error names the ids of those who can read, and no secret."""
    packed = pack(b"")
    with pytest.raises(EncryptionError) as caught:
        unpack(packed, reader=OTHER)
    assert caught.value.kind == "wrong-key"
    for writer in WRITERS:
        assert writer.id.hex() in str(caught.value)
    later = MAGIC[:-1] + b"2" + packed[len(MAGIC) :]
    with pytest.raises(EncryptionError, match="later version") as caught:
        unpack(later)
    assert caught.value.kind == "version"


def test_share_that_is_no_public_key_is_refused() -> None:
    """A share of zeros would make the same key for everybody."""
    packed = bytearray(pack(b"x"))
    packed[len(MAGIC) : len(MAGIC) + 32] = bytes(32)
    with pytest.raises(TamperedError):
        unpack(bytes(packed), reader=IDENTITY)


def test_header_has_room_for_all_recipients() -> None:
    """As many as may be configured fit, and the last one reads."""
    identities = [Identity(bytes([i]) * 32) for i in range(SLOTS)]
    writers = [Recipient(public_key(one.private)) for one in identities]
    sealed = new_object(writers, "n", b"s" * SEED)
    packed = sealed.header + sealed.seal(0, b"all", ends=True)
    assert len(sealed.header) == HEADER
    assert unpack(packed, "n", identities[-1]) == b"all"
