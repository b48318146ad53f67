"""The LTX file format: files of changed pages, as Litestream writes them.

Pure: bytes in, values out. Nothing here opens files or reads clocks.
"""

from __future__ import annotations

from sqlitereplica.ltx.checksum import (
    EMPTY_CHECKSUM,
    database_checksum,
    page_checksum,
    page_checksums,
)
from sqlitereplica.ltx.compactor import compact, merge, merge_headers
from sqlitereplica.ltx.decoder import Decoder, decode, decode_frame
from sqlitereplica.ltx.encoder import Encoder, encode
from sqlitereplica.ltx.format import (
    FLAG_NO_CHECKSUM,
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    MAX_COMMIT,
    MAX_LEVEL,
    PAGE_HEADER_SIZE,
    SNAPSHOT_LEVEL,
    TRAILER_SIZE,
    BinaryReader,
    Buffer,
    Header,
    compress_bound,
    lock_pgno,
    snapshot_page_count,
)
from sqlitereplica.ltx.index import (
    INDEX_TAIL_SIZE,
    PageIndex,
    index_entries,
    index_offset,
)
from sqlitereplica.ltx.names import (
    FileInfo,
    format_filename,
    format_txid,
    parse_filename,
    parse_txid,
)
from sqlitereplica.ltx.sums import decode_sums, encode_sums, sums_size

__all__ = [
    "EMPTY_CHECKSUM",
    "FLAG_NO_CHECKSUM",
    "FRAME_HEADER_SIZE",
    "HEADER_SIZE",
    "INDEX_TAIL_SIZE",
    "MAX_COMMIT",
    "MAX_LEVEL",
    "PAGE_HEADER_SIZE",
    "SNAPSHOT_LEVEL",
    "TRAILER_SIZE",
    "BinaryReader",
    "Buffer",
    "Decoder",
    "Encoder",
    "FileInfo",
    "Header",
    "PageIndex",
    "compact",
    "compress_bound",
    "database_checksum",
    "decode",
    "decode_frame",
    "decode_sums",
    "encode",
    "encode_sums",
    "format_filename",
    "format_txid",
    "index_entries",
    "index_offset",
    "lock_pgno",
    "merge",
    "merge_headers",
    "page_checksum",
    "page_checksums",
    "parse_filename",
    "parse_txid",
    "snapshot_page_count",
    "sums_size",
]
