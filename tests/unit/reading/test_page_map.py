"""Where pages are: the right file for each page, whatever grew and shrank."""

from __future__ import annotations

from io import BytesIO

import pytest
from support.ltxfiles import image, make_header

from sqlitereplica.errors import InvalidFileError, PosMismatchError
from sqlitereplica.ltx import Decoder, FileInfo, Header, PageIndex, encode
from sqlitereplica.reading.pagemap import PageMap, Part


def part(first: int, last: int, commit: int, *pgnos: int, **changes: int) -> Part:
    """A file of these transactions that brings some pages."""
    header = make_header(min_txid=first, max_txid=last, commit=commit, **changes)
    pages = [page for page in image(header.page_size, commit) if page[0] in pgnos]
    data = encode(header, pages)
    info = FileInfo(0, first, last, len(data), header.timestamp)
    index = PageIndex.parse(data, len(data))
    return Part(info, Decoder(BytesIO(data)).header, index, lambda pgno: None)


BASE = part(1, 1, 4, 1, 2, 3, 4)


def owners(pages: PageMap) -> list[int]:
    """The first transaction of the file that each page comes from; 0 for none."""
    found = []
    for pgno in range(1, pages.commit + 1):
        try:
            owner = pages.owner(pgno)
        except InvalidFileError:
            found.append(0)
        else:
            found.append(owner.header.min_txid)
    return found


def test_newest_copy_of_a_page_counts() -> None:
    """Each page belongs to the last file that brings it."""
    pages = PageMap.begin(BASE).advance(part(2, 2, 4, 1, 3)).advance(part(3, 3, 4, 3))
    assert owners(pages) == [2, 1, 3, 1]
    assert (pages.txid, pages.commit) == (3, 4)


def test_earlier_map_stays_as_it_was() -> None:
    """A reader of an earlier state sees it, though the map went on."""
    first = PageMap.begin(BASE)
    first.advance(part(2, 2, 5, 1, 3, 5))
    assert owners(first) == [1, 1, 1, 1]


def test_pages_of_before_a_shrink_never_come_back() -> None:
    """After shrinking and growing again, a page is from a file that came later."""
    small = PageMap.begin(BASE).advance(part(2, 2, 2, 1))
    assert owners(small) == [2, 1]
    assert owners(small.advance(part(3, 3, 4, 1, 3, 4))) == [3, 1, 3, 3]
    assert owners(small.advance(part(3, 3, 4, 1, 4))) == [3, 1, 0, 3]
    with pytest.raises(InvalidFileError) as error:
        small.advance(part(3, 3, 4, 1, 4)).owner(3)
    assert error.value.kind == "incomplete"


def test_image_in_the_middle_replaces_all() -> None:
    """A full image brings every page, whatever was before."""
    pages = PageMap.begin(BASE).advance(part(1, 2, 3, 1, 2, 3))
    assert owners(pages) == [1, 1, 1]
    assert pages.has(pages.parts[1], 2)
    assert not pages.has(pages.parts[0], 2)
    assert not pages.has(pages.parts[1], 4)


def test_increment_cannot_be_the_first() -> None:
    """A state begins with a whole database."""
    with pytest.raises(InvalidFileError) as error:
        PageMap.begin(part(2, 2, 4, 1))
    assert error.value.kind == "base"


def test_gap_is_refused() -> None:
    """Files that do not join make no state."""
    with pytest.raises(PosMismatchError):
        PageMap.begin(BASE).advance(part(3, 3, 4, 1))


def test_other_page_size_is_refused() -> None:
    """Pages of two sizes make no state."""
    with pytest.raises(InvalidFileError) as error:
        PageMap.begin(BASE).advance(part(2, 2, 4, 1, page_size=1024))
    assert error.value.kind == "page-size"


def test_size_that_no_file_can_fill_is_refused_before_memory_is_taken() -> None:
    """A header that lies about the size of the database costs nothing."""
    lie = Header(
        page_size=512, commit=4_000_000_000, min_txid=2, max_txid=2, timestamp=1
    )
    liar = Part(BASE.info, lie, BASE.index, BASE.sum_of)
    with pytest.raises(InvalidFileError) as error:
        PageMap.begin(BASE).advance(liar)
    assert error.value.kind == "commit"


def test_page_outside_the_database_is_refused() -> None:
    """An index that has pages which the header excludes is no good."""
    short = make_header(min_txid=2, max_txid=2, commit=3)
    with pytest.raises(InvalidFileError) as error:
        PageMap.begin(BASE).advance(Part(BASE.info, short, BASE.index, BASE.sum_of))
    assert error.value.kind == "pgno"
