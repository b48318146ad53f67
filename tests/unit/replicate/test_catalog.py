"""The files of a replica, remembered."""

from __future__ import annotations

from sqlitereplica.ltx import FileInfo
from sqlitereplica.replicate.catalog import Catalog


def info(txid: int, timestamp: int = 0, level: int = 0) -> FileInfo:
    """A file of one transaction."""
    return FileInfo(level, txid, txid, 100, timestamp)


def test_listing_replaces_what_was_known() -> None:
    """What is not listed any more is forgotten, and told."""
    catalog = Catalog()
    assert catalog.replace([info(1), info(2)], catalog.version) == []
    assert catalog.replace([info(2), info(3)], catalog.version) == [info(1)]
    assert catalog.files() == (info(2), info(3))


def test_file_put_while_a_listing_was_made_stays() -> None:
    """The store may or may not have shown it: our own put is certain."""
    catalog = Catalog()
    catalog.replace([info(1)], 0)
    since = catalog.version
    catalog.add(info(2))
    assert catalog.replace([info(1)], since) == []
    assert catalog.files() == (info(1), info(2))
    assert catalog.replace([info(1)], catalog.version) == [info(2)]


def test_time_of_a_file_that_was_put_is_kept() -> None:
    """Listings of object stores tell the time of the upload, not that of the header."""
    catalog = Catalog()
    catalog.add(info(1, timestamp=1000))
    catalog.replace([info(1, timestamp=5000)], catalog.version)
    assert catalog.files() == (info(1, timestamp=1000),)


def test_version_changes_only_with_the_files() -> None:
    """Whoever saw a version need not look again while it is the same."""
    catalog = Catalog()
    catalog.replace([info(1)], 0)
    version = catalog.version
    catalog.replace([info(1)], version)
    assert catalog.version == version
    catalog.replace([info(2)], version)
    assert catalog.version > version
    version = catalog.version
    catalog.remove([info(2)])
    assert catalog.version > version and catalog.files() == ()


def test_files_are_in_order_of_level_and_txid() -> None:
    """Whatever the order in which they came."""
    catalog = Catalog()
    for file in (info(3), info(1, level=9), info(2), info(1)):
        catalog.add(file)
    assert [(f.level, f.min_txid) for f in catalog.files()] == [
        (0, 1),
        (0, 2),
        (0, 3),
        (9, 1),
    ]
