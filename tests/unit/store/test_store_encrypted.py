"""Encrypted stores: the contract of every store, and what nobody else can read."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from sqlitereplica.errors import (
    AnotherWriterError,
    EncryptionError,
    TamperedError,
)
from sqlitereplica.ltx import FileInfo
from sqlitereplica.store import Encryption, LTXStore, Replica
from sqlitereplica.store.encrypted import EncryptedStore
from sqlitereplica.store.sealedform import CHUNK, HEADER, MAGIC, object_size
from sqlitereplica.testing import Fault, FaultyFileSystem, LTXStoreTests, only

OWN = Encryption.new_identity()
OTHER = Encryption.new_identity()
KEY = Encryption.new_key()
TIME = 1_700_000_000_000
BIG = secrets.token_bytes(3 * CHUNK + 77)


class EncryptedStoreTests(LTXStoreTests):
    """The contract, for whoever has the keys."""

    encryption = Encryption(recipients=[Encryption.recipient(OWN)], identities=[OWN])

    def reopened(self, store: LTXStore, **settings: Any) -> LTXStore:
        """Another store with the same keys, and its own randomness."""
        settings["encryption"] = self.encryption
        return EncryptedStore(store._fs, store._root, **settings)

    def test_files_of_litestream_03_are_listed_and_read(self, store: LTXStore) -> None:
        """Files of Litestream 0.3 are plain, so nothing is restored from them."""
        store._fs.makedirs(f"{store._root}/generations/00000000000000ab", exist_ok=True)
        assert store.list_generations() == []


class TestEncryptedFolder(EncryptedStoreTests):
    """A folder, with a key pair."""

    lists_header_time = True

    @pytest.fixture
    def store(self, tmp_path: Path) -> LTXStore:
        """A store in a folder that does not exist yet."""
        replica = Replica(tmp_path / "replica", encryption=self.encryption)
        return replica.open()


class TestEncryptedObjects(EncryptedStoreTests):
    """Something like S3, with a shared key."""

    encryption = Encryption(key=KEY)

    @pytest.fixture
    def store(self) -> LTXStore:
        """A store on a wrapper that claims to be S3."""
        memory = MemoryFileSystem(global_store=False, skip_instance_cache=True)
        fs = FaultyFileSystem(memory, protocol="s3")
        return Replica(fs, path="bucket/replica", encryption=self.encryption).open()


class TestEncryptedFolderElsewhere(EncryptedStoreTests):
    """Folders of another machine, with both."""

    one_winner = False
    encryption = Encryption(recipients=[Encryption.recipient(OTHER)], key=KEY)

    @pytest.fixture
    def store(self, tmp_path: Path) -> LTXStore:
        """A store on a wrapper that claims to be SFTP."""
        fs = FaultyFileSystem(LocalFileSystem(), protocol="sftp")
        path = str(tmp_path / "replica")
        return Replica(fs, path=path, encryption=self.encryption).open()


def opened(folder: Path, encryption: Encryption | None) -> LTXStore:
    """A store in a folder."""
    return Replica(folder, encryption=encryption).open()


def put(store: LTXStore, data: bytes | Path = BIG, txid: int = 1) -> FileInfo:
    """Store something at level 0."""
    return store.put(0, txid, txid, data, timestamp=TIME)


def objects(folder: Path) -> list[Path]:
    """The files in a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_stored_holds_no_plain_text(tmp_path: Path) -> None:
    """Neither LTX files, from memory or from disk, nor side files show their content."""
    store = opened(tmp_path / "r", Encryption(key=KEY))
    marker = b"the secret of the archive"
    source = tmp_path / "source.ltx"
    source.write_bytes(marker * 9000)
    put(store, marker * 9)
    put(store, source, 2)
    store.put_side("pins", "p", marker)
    found = objects(tmp_path / "r")
    assert len(found) == 3
    for path in found:
        assert path.read_bytes().startswith(MAGIC)
        assert marker not in path.read_bytes()
    assert objects(tmp_path)[-1] == source, "nothing is left beside the source"


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 64 * CHUNK, 64 * CHUNK + 5]
)
def test_sizes_at_the_edges_of_chunks_come_back(tmp_path: Path, size: int) -> None:
    """Bytes and files of every kind of size are the same afterwards, and so listed."""
    data = secrets.token_bytes(size)
    store = opened(tmp_path / "r", Encryption(key=KEY))
    source = tmp_path / "source"
    source.write_bytes(data)
    for txid, what in ((1, data), (2, source)):
        info = put(store, what, txid)
        assert info.size == size
        assert store.get(info) == data
    assert [file.size for file in store.list_all()] == [size, size]
    assert [path.stat().st_size for path in objects(tmp_path / "r")] == [
        object_size(size)
    ] * 2


def test_ranges_are_read_by_themselves(tmp_path: Path) -> None:
    """A range costs its own chunks, and any range is right, in any order."""
    writer, reader = (opened(tmp_path, Encryption(key=KEY)) for _ in range(2))
    info = put(writer)
    for start in (3 * CHUNK + 5, 2 * CHUNK, CHUNK - 1, 0):
        for end in (start + 1, start + CHUNK, len(BIG)):
            assert reader.get(info, start, end) == BIG[start:end]


def test_every_recipient_can_read_and_nobody_else(tmp_path: Path) -> None:
    """Each of several identities opens what is for it; another one is told so."""
    recipients = [Encryption.recipient(one) for one in (OWN, OTHER)]
    info = put(opened(tmp_path, Encryption(recipients=recipients)))
    for identity in (OWN, OTHER):
        assert opened(tmp_path, Encryption(identities=[identity])).get(info) == BIG
    stranger = Encryption(identities=[Encryption.new_identity()])
    for keys in (stranger, Encryption(key=KEY)):
        with pytest.raises(EncryptionError) as caught:
            opened(tmp_path, keys).get(info)
        assert (caught.value.kind, caught.value.transient) == ("wrong-key", False)


def test_rotated_keys_read_both_old_and_new(tmp_path: Path) -> None:
    """After a rotation old files stay readable, and the old key opens no new ones."""
    old, new = Encryption.new_key(), Encryption.new_key()
    before = opened(tmp_path, Encryption(key=old))
    first = put(before)
    after = opened(tmp_path, Encryption(key=new, old_keys=[old]))
    second = put(after, b"new", 2)
    assert (after.get(first), after.get(second)) == (BIG, b"new")
    with pytest.raises(EncryptionError, match="none of the keys"):
        before.get(second)
    pair = Encryption(identities=[OWN], old_keys=[new, old])
    moved = opened(tmp_path, pair)
    assert moved.get(moved.list_all()[0]) == BIG
    assert moved.get(put(moved, b"pair", 3)) == b"pair"


def test_reader_without_keys_is_told(tmp_path: Path) -> None:
    """A plain store never takes an encrypted object for a damaged one."""
    info = put(opened(tmp_path, Encryption(key=KEY)))
    plain = opened(tmp_path, None)
    with pytest.raises(EncryptionError, match="pass Replica") as caught:
        plain.get(plain.list_all()[0], 0, 100)
    assert caught.value.kind == "no-key"
    with pytest.raises(AnotherWriterError):
        put(plain)
    writer = opened(tmp_path, Encryption(recipients=[Encryption.recipient(OWN)]))
    with pytest.raises(EncryptionError) as caught:
        writer.get(info)
    assert caught.value.kind == "no-key"


@pytest.mark.parametrize("size", [0, 90, 5000])
def test_plain_objects_are_refused(tmp_path: Path, size: int) -> None:
    """Where encryption is configured, what is not encrypted is never given out."""
    put(opened(tmp_path, None), b"x" * size)
    store = opened(tmp_path, Encryption(key=KEY))
    [info] = store.list_all()
    for ask in (lambda: store.get(info), lambda: store.get(info, 0, 50)):
        with pytest.raises(EncryptionError) as caught:
            ask()
        assert caught.value.kind == "not-encrypted"


def test_swapped_objects_are_refused(tmp_path: Path) -> None:
    """An object under the name of another, at another level too, does not open."""
    store = opened(tmp_path, Encryption(key=KEY))
    first, second = put(store, BIG, 1), put(store, BIG, 2)
    copied = store.copy(first, 9, tmp_path / "scratch")
    one, two = (tmp_path / "ltx" / "0" / info.name for info in (first, second))
    top = tmp_path / "ltx" / "9" / copied.name
    for path in (two, top):
        path.unlink()
        path.write_bytes(one.read_bytes())
    for info in (second, copied):
        with pytest.raises(TamperedError, match=r"\.ltx was changed"):
            store.get(info)
    assert store.get(first) == BIG


def test_replica_that_was_begun_anew_is_read(tmp_path: Path) -> None:
    """A data key that was remembered is dropped when the object is another one."""
    store = opened(tmp_path, Encryption(key=KEY))
    info = put(store)
    assert store.get(info) == BIG
    other = opened(tmp_path, Encryption(key=KEY))
    other.delete([info])
    put(other, BIG[::-1])
    assert store.get(info, 2 * CHUNK, 2 * CHUNK + 9) == BIG[::-1][2 * CHUNK :][:9]


def test_host_that_cannot_read_knows_its_own_put(tmp_path: Path) -> None:
    """A put whose answer was lost is tried again, and recognised without any key."""
    memory = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    fs = FaultyFileSystem(memory, protocol="s3")
    keys = Encryption(recipients=[Encryption.recipient(OWN)])
    store = Replica(fs, path="b/r", encryption=keys).open()
    info = put(store)
    assert put(store) == info
    source = tmp_path / "source"
    source.write_bytes(BIG)
    assert put(store, source) == info
    with pytest.raises(AnotherWriterError):
        put(store, BIG[::-1])
    elsewhere = Replica(fs, path="b/r", encryption=keys).open()
    with pytest.raises(AnotherWriterError):
        put(elsewhere)


def test_reader_knows_a_put_of_another_process(tmp_path: Path) -> None:
    """With keys the content decides, though every process encrypts in its own way."""
    first, second = (opened(tmp_path, Encryption(key=KEY)) for _ in range(2))
    put(first)
    bytes_before = objects(tmp_path)[0].read_bytes()
    put(second)
    assert objects(tmp_path)[0].read_bytes() == bytes_before


def test_object_under_our_name_that_does_not_open_is_another_writer(
    tmp_path: Path,
) -> None:
    """Whatever has the name and is not ours is never replaced, whoever encrypted it."""
    put(opened(tmp_path, Encryption(key=Encryption.new_key())))
    with pytest.raises(AnotherWriterError):
        put(opened(tmp_path, Encryption(key=KEY)))


def test_object_that_was_cut_is_tampered_or_short(tmp_path: Path) -> None:
    """A cut never goes unnoticed, by old listings neither."""
    store = opened(tmp_path, Encryption(key=KEY))
    put(store)
    [path] = objects(tmp_path)
    whole = path.read_bytes()
    for size in (HEADER - 1, HEADER + CHUNK + 16, len(whole) - 16, len(whole) - 1):
        path.write_bytes(whole[:size])
        fresh = opened(tmp_path, Encryption(key=KEY))
        [info] = fresh.list_all()
        with pytest.raises(TamperedError):
            fresh.get(info)


def test_only_old_keys_write_nothing(tmp_path: Path) -> None:
    """Old keys are to read with: a put says so and stores nothing."""
    store = opened(tmp_path, Encryption(old_keys=[KEY]))
    with pytest.raises(EncryptionError) as caught:
        put(store)
    assert caught.value.kind == "no-recipient"
    assert objects(tmp_path) == []


def test_errors_and_reprs_show_no_key(tmp_path: Path) -> None:
    """Nothing that is printed has a secret in it."""
    keys = Encryption(identities=[OWN], key=KEY, old_keys=[Encryption.new_key()])
    store = opened(tmp_path, keys)
    shown = [repr(keys), repr(store), repr(Replica(tmp_path, encryption=keys))]
    shown += [repr(one) for one in (*keys.writers(), *keys.readers())]
    secret = [OWN, KEY, keys.old_keys[0], repr(keys.readers()[0].__getstate__())]
    for text in shown:
        for one in secret:
            assert one[-20:] not in text


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (OWN, "recipient"),
        (Encryption.recipient(OWN)[:-1], "recipient"),
        (Encryption.recipient(OWN) + "A", "recipient"),
        (Encryption.recipient(OWN).swapcase(), "recipient"),
        ("", "recipient"),
    ],
    # The keys are random: as names they would differ from process to process.
    ids=["identity", "cut", "longer", "other case", "empty"],
)
def test_recipient_with_a_typing_error_is_refused(text: str, what: str) -> None:
    """A backup that nobody can read is not begun; the error shows nothing of the text."""
    with pytest.raises(ValueError, match=what) as caught:
        Encryption(recipients=[text])
    assert len(text) < 9 or text[-9:] not in str(caught.value)


def test_settings_that_cannot_be_meant_are_refused() -> None:
    """Nothing at all, one text for a list, and more recipients than there is room for."""
    nine = [Encryption.recipient(Encryption.new_identity()) for _ in range(9)]
    for settings in ({}, {"recipients": nine[0]}, {"recipients": nine}, {"key": "x"}):
        with pytest.raises(ValueError):
            Encryption(**settings)  # type: ignore[arg-type]
    Encryption(recipients=nine[:8])


def test_missing_package_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ``cryptography`` nothing is stored, and the error says what to install."""
    keys = Encryption(key=KEY)
    monkeypatch.delitem(sys.modules, "sqlitereplica.store.sealing")
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(EncryptionError, match=r"sqlitereplica\[crypto\]") as caught:
        Replica(tmp_path / "r", encryption=keys).open()
    assert caught.value.kind == "package"


def test_listing_of_an_encrypted_store_reads_no_object(tmp_path: Path) -> None:
    """Sizes of the content follow from those of the objects: one listing tells all."""
    memory = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    fs = FaultyFileSystem(memory, protocol="s3")
    store = Replica(fs, path="b/r", encryption=Encryption(key=KEY)).open()
    infos = [put(store, BIG[:size], size) for size in (1, CHUNK, CHUNK + 1)]
    fs.plan = only("read")
    listed = store.list_all()
    assert [file.size for file in listed] == [file.size for file in infos]
    fs.heal()
    assert store.get(listed[2]) == BIG[: CHUNK + 1]


@pytest.mark.parametrize("fault", [Fault.SHORT, Fault.EMPTY])
def test_answer_that_breaks_off_is_read_again(fault: Fault) -> None:
    """A store that gives too little once is neither tampered with nor plain."""
    memory = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    fs = FaultyFileSystem(memory, protocol="s3")
    keys = Encryption(key=KEY)
    info = put(Replica(fs, path="b/r", encryption=keys).open(), b"x" * 300)
    for start in (0, 200):
        quick = EncryptedStore(fs, "b/r", encryption=keys, sleep=lambda _: None)
        fs.plan = only("read", fault=fault, times=1)
        assert quick.get(info, start) == b"x" * (300 - start)
        assert quick.requests["get"] == 2
