"""Page checksums beside the levels of a replica: which pages an old copy already has.

``sums/<txid>`` lists the checksums of all pages after that transaction (``ltx.sums``); a
writer makes one for each full image. It only saves bytes: without it, or if it does not
fit its image, a restore fetches everything.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import replace

from sqlitereplica.errors import AnotherWriterError, InvalidFileError, StoreError
from sqlitereplica.ltx import (
    FileInfo,
    Header,
    decode_sums,
    encode_sums,
    format_txid,
    parse_txid,
    sums_size,
)
from sqlitereplica.store import LTXStore, SideFile, StoreReader

__all__ = ["SUMS_FOLDER", "put_sums", "read_sums", "stale_sums", "sums_file"]

SUMS_FOLDER = "sums"


def sums_file(txid: int) -> SideFile:
    """Where the page checksums of a state are, if there are any; its size is not told."""
    return SideFile(SUMS_FOLDER, format_txid(txid), 0)


def put_sums(store: LTXStore, image: Header, sums: array[int]) -> SideFile:
    """Store the checksums of all pages of a full image; to be called after it is stored.

    ``image`` is its header, with the database checksum; ``sums`` are by page number less
    one, 0 for the lock page.

    Raises:
        InvalidFileError: They are not those of the image.
        StoreError: The store failed. A restore will do without.
    """
    data = encode_sums(image, sums)
    file = sums_file(image.max_txid)
    try:
        return store.put_side(file.folder, file.name, data)
    except AnotherWriterError:
        # Left of a history that was deleted, or torn: no image can have it now.
        store.delete_side([file])
        return store.put_side(file.folder, file.name, data)


def read_sums(store: LTXStore, image: Header) -> array[int] | None:
    """Return the checksums of all pages of a full image; None if there are none.

    ``image`` is its header. Memory: 8 bytes a page, and a few megabytes.

    Raises:
        InvalidFileError: What is there is damaged, or of another image.
        StoreError: The store failed.
    """
    size = sums_size(image.commit)
    file = replace(sums_file(image.max_txid), size=size)
    reader = StoreReader(lambda start, end: store.get_side(file, start, end), size)
    try:
        with reader:
            return decode_sums(reader, image)
    except StoreError as error:
        if error.kind == "missing":
            return None
        raise


def stale_sums(
    side_files: Iterable[SideFile], infos: Iterable[FileInfo]
) -> list[SideFile]:
    """Return the page checksums whose full image is gone; for retention to delete.

    Files with other names than a transaction's are left alone.
    """
    images = {info.max_txid for info in infos if info.min_txid == 1}
    stale = []
    for file in side_files:
        try:
            txid = parse_txid(file.name)
        except InvalidFileError:
            continue  # not ours
        if file.folder == SUMS_FOLDER and txid not in images:
            stale.append(file)
    return stale
