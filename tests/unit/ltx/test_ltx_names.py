"""Names of LTX files and TXIDs as text."""

from __future__ import annotations

import pytest

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.ltx import (
    FileInfo,
    format_filename,
    format_txid,
    parse_filename,
    parse_txid,
)

A = "0000000000000001"
B = "00000000000000ff"


def test_file_name_is_two_txids_in_hex() -> None:
    """A name is made of 16 digits, a dash, 16 digits and the ending."""
    assert format_filename(1, 255) == f"{A}-{B}.ltx"
    assert parse_filename(f"{A}-{B}.ltx") == (1, 255)


def test_largest_txid_has_a_name() -> None:
    """TXIDs are unsigned 64-bit numbers."""
    name = format_filename(1, 2**64 - 1)
    assert parse_filename(name) == (1, 2**64 - 1)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".ltx",
        f"{A}-{B}",
        f"{A}-{B}.ltx\n",
        f" {A}-{B}.ltx",
        f"{A}-{B}.ltx.tmp",
        f"{A}-{B.upper()}.ltx",
        f"{A}-{B}.LTX",
        f"{A}_{B}.ltx",
        f"{A[1:]}-{B}.ltx",
        f"0{A}-{B}.ltx",
        f"../{A}-{B}.ltx",
        f"{A}-{B}.ltx/..",
        f"{A}-{B}.ltx\0",
        f"{A}-\N{ARABIC-INDIC DIGIT ONE}{B[1:]}.ltx",
        f"-{A[1:]}-{B}.ltx",
        f"0x{A[2:]}-{B}.ltx",
        f"{B}-{A}.ltx",
        f"{'0' * 16}-{A}.ltx",
        f"{'0' * 16}-{'0' * 16}.ltx",
    ],
)
def test_foreign_name_is_no_file(name: str) -> None:
    """Whatever is not exactly a name, or has impossible TXIDs, is ignored."""
    assert parse_filename(name) is None


def test_info_knows_its_name() -> None:
    """The name follows from the TXIDs."""
    info = FileInfo(level=0, min_txid=1, max_txid=255, size=10, timestamp=0)
    assert info.name == f"{A}-{B}.ltx"


@pytest.mark.parametrize("txid", [0, 1, 255, 2**64 - 1])
def test_txid_text_is_read_back(txid: int) -> None:
    """Formatting and parsing are inverse."""
    assert parse_txid(format_txid(txid)) == txid


@pytest.mark.parametrize(
    "text", ["", "1", A.upper() + "0", B.upper(), A + "\n", "g" * 16]
)
def test_text_that_is_no_txid_is_refused(text: str) -> None:
    """A TXID has exactly 16 lower-case digits."""
    with pytest.raises(InvalidFileError) as caught:
        parse_txid(text)
    assert caught.value.kind == "txid"


@pytest.mark.parametrize("txid", [-1, 2**64])
def test_number_that_is_no_txid_is_refused(txid: int) -> None:
    """Other than 64 bits have no text."""
    with pytest.raises(InvalidFileError) as caught:
        format_txid(txid)
    assert caught.value.kind == "txid"
