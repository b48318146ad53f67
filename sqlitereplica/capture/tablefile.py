"""The page table on disk: a base and a log of what changed since.

It answers one question after a restart: *what did the database hold when its checksum was
X?*, X being the database checksum in the replica's newest file. With the answer a replica
is brought up by a delta; without it the table is rebuilt from the replica. Checksums come
again with other pages, so the answer is only given when one recorded state has X, and none
that a replica may still hold is missing. The file is a cache: nothing is lost with it, and
whatever does not check is taken as absent.

A loss of power may take the end of a log that is not fsynced, and a log without its end is
one with missing states. So a log names the boot of the machine in which it was written, and
in another one it is not believed. It is fsynced only when it is closed, and then names no
boot at all: it may be believed in any.

Format, native byte order::

    pages       magic(8) page_size(u32) commit(u32) checksum(u64) crc(u64)  commit x u64
    pages.log   magic(8) checksum of its base(u64) boot(16), zeros when it was closed
                then records: n(u32) commit(u32) checksum(u64)  n x u32  n x u64  crc(u64)

A log that names another base than ``pages`` belongs to an older one and is ignored: that is
what makes replacing the base atomic.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import uuid
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fastcrc.crc64 import go_iso

from sqlitereplica.capture.table import Changes, PageTable

__all__ = ["TableFile"]

_BASE = struct.Struct("=8sIIQQ")
_LOG = struct.Struct("=8sQ16s")
_BOOT_AT, _CLOSED = 16, bytes(16)
_RECORD = struct.Struct("=IIQ")
_CRC = struct.Struct("=Q")
_BASE_MAGIC, _LOG_MAGIC = b"SQLRPT01", b"SQLRPL02"
_MIN_LOG = 1 << 20
_MAX_LOG = 64 << 20


def boot_id() -> bytes:
    """16 bytes that differ between boots of this machine, and between machines.

    Where the system does not tell they are random: what a process that was killed has
    left is then not believed.
    """
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
        return uuid.UUID(text.strip()).bytes
    except (OSError, ValueError):
        return os.urandom(16)


class TableFile:
    """Base and log in ``folder``. Thread-safe; one writer."""

    def __init__(self, folder: Path, boot: bytes | None = None) -> None:
        """``boot`` is 16 bytes that no other boot has, ``boot_id()`` by default."""
        self._boot = boot_id() if boot is None else boot
        self._base_path, self._log_path = folder / "pages", folder / "pages.log"
        self._lock = threading.Lock()
        self._log: BinaryIO | None = None
        self.log_size = 0
        self.base_size = 0
        self.error: OSError | None = None
        """Why nothing is recorded at present, if so; replication goes on without."""

    def find(self, checksum: int) -> PageTable | None:
        """The table of the state with this database checksum.

        None when none is recorded, and when several are that differ: a checksum may come
        again with other pages (see ``PageTable.is_state_of``).
        """
        found, size = None, _LOG.size
        with self._lock:
            table = self._load_base()
            if table is None or not self._belongs(table.checksum):
                return None
            if table.checksum == checksum:
                found = table.copy()
            for commit, post, changes in self._records(table.checksum):
                table.apply(commit, changes)
                if table.checksum != post:
                    return None
                if post == checksum and found is None:
                    found = table.copy()
                elif post == checksum and found and not table.is_state_of(found):
                    return None
                size += _RECORD.size + 12 * len(changes) + _CRC.size
            return None if self._is_damaged(size) else found

    def begin(self, table: PageTable) -> None:
        """Go on from whatever was recorded before to ``table``, keeping the old states."""
        last, size = self._last()
        if last is None or last.page_size != table.page_size:
            self.forget()
            return
        try:
            with self._lock:
                # A torn record is of a change that went no further: it is shipped behind.
                os.truncate(self._log_path, size)
                self._name_boot(self._boot)
                self._open_log(append=True)
        except OSError as error:
            self.forget()
            self.error = error
            return
        if not last.is_state_of(table):
            changes = [(p, table.sums[p - 1]) for p in table.differs_from(last)]
            self.append(table.commit, table.checksum, changes)

    def append(self, commit: int, checksum: int, changes: Changes) -> None:
        """Record one transition; after a failure nothing is, until a rewrite.

        The failure is kept in ``error``.
        """
        if self._log is None:
            return
        numbers = array("I", [p for p, _ in changes]).tobytes()
        sums = array("Q", [s for _, s in changes]).tobytes()
        record = _RECORD.pack(len(changes), commit, checksum) + numbers + sums
        record += _CRC.pack(go_iso(record))
        with self._lock:
            try:
                written = self._log.write(record)
                if written != len(record):
                    raise OSError(errno.ENOSPC, "a record was cut", self._log_path)
                self.log_size += len(record)
                self.error = None
            except OSError as error:
                self._forget()
                self.error = error

    @property
    def wants_rewrite(self) -> bool:
        """True when the log has outgrown its base."""
        return self._log is None or self.log_size > max(_MIN_LOG, self.base_size)

    @property
    def must_rewrite(self) -> bool:
        """True when the log must not grow on, even if what it holds is lost with it."""
        return self.log_size > max(_MAX_LOG, 4 * self.base_size)

    def rewrite(self, table: PageTable) -> None:
        """Make ``table`` the base of an empty log; older states are forgotten."""
        sums = table.sums.tobytes()
        fields = (_BASE_MAGIC, table.page_size, table.commit, table.checksum)
        crc = go_iso(sums, go_iso(_BASE.pack(*fields, 0)))
        with self._lock:
            try:
                temporary = self._base_path.with_suffix(".tmp")
                with temporary.open("wb") as file:
                    file.write(_BASE.pack(*fields, crc))
                    file.write(sums)
                temporary.replace(self._base_path)
                self.base_size = len(sums)
                self._open_log(append=False, base=table.checksum)
                self.error = None
            except OSError as error:
                self._close_log()
                self.error = error

    def forget(self) -> None:
        """Record nothing until a ``rewrite``: what there was has holes, or grew too long.

        A table with holes is worse than none, since checksums come again.
        """
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._close_log()
        for path in (self._log_path, self._base_path):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                self.error = error

    def close(self) -> None:
        """Close the log, durably: it is believed after a loss of power as well."""
        with self._lock:
            if self._log is None:
                return
            try:
                _fsync(self._base_path)
                _fsync(self._base_path.parent)
                os.fsync(self._log.fileno())
                self._name_boot(_CLOSED)
            except OSError as error:
                self.error = error
            self._close_log()

    def _name_boot(self, boot: bytes) -> None:
        """Say in the log on whose word it stands; durable when this returns."""
        fd = os.open(self._log_path, os.O_WRONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            os.pwrite(fd, boot, _BOOT_AT)
            os.fsync(fd)
        finally:
            os.close(fd)

    def _last(self) -> tuple[PageTable | None, int]:
        """The newest recorded table, and the size of the log up to it."""
        size = _LOG.size
        with self._lock:
            table = self._load_base()
            if table is None or not self._belongs(table.checksum):
                return None, 0
            for commit, post, changes in self._records(table.checksum):
                table.apply(commit, changes)
                size += _RECORD.size + 12 * len(changes) + _CRC.size
                if table.checksum != post:
                    return None, 0
            return (None, 0) if self._is_damaged(size) else (table, size)

    def _is_damaged(self, size: int) -> bool:
        """Whether what follows the valid records is more than one that was torn."""
        try:
            with self._log_path.open("rb") as file:
                file.seek(size)
                rest = file.read()
        except OSError:
            return True
        if len(rest) < _RECORD.size:
            return False
        length = _RECORD.size + 12 * _RECORD.unpack_from(rest)[0] + _CRC.size
        return len(rest) >= int(length)

    def _belongs(self, base: int) -> bool:
        """Whether there is a log, of that base, and nothing can be missing in it."""
        try:
            with self._log_path.open("rb") as file:
                return self._is_head(file.read(_LOG.size), base)
        except OSError:
            return False

    def _is_head(self, head: bytes, base: int) -> bool:
        if len(head) < _LOG.size:
            return False
        magic, of, boot = _LOG.unpack(head)
        return (magic, of) == (_LOG_MAGIC, base) and boot in (self._boot, _CLOSED)

    def _load_base(self) -> PageTable | None:
        try:
            data = self._base_path.read_bytes()
        except OSError:
            return None
        if len(data) < _BASE.size:
            return None
        *fields, crc = _BASE.unpack_from(data)
        magic, page_size, commit, checksum = fields
        body = data[_BASE.size :]
        if magic != _BASE_MAGIC or len(body) != 8 * commit:
            return None
        if go_iso(body, go_iso(_BASE.pack(*fields, 0))) != crc:
            return None
        table = PageTable(page_size, array("Q", body))
        self.base_size = len(body)
        return table if table.checksum == checksum else None

    def _records(self, base: int) -> Iterator[tuple[int, int, Changes]]:
        try:
            file = self._log_path.open("rb")
        except OSError:
            return
        with file:
            if not self._is_head(file.read(_LOG.size), base):
                return
            while len(head := file.read(_RECORD.size)) == _RECORD.size:
                n, commit, checksum = _RECORD.unpack(head)
                left = os.fstat(file.fileno()).st_size - file.tell()
                if 12 * n + _CRC.size > left:
                    return
                body = file.read(12 * n)
                if _CRC.unpack(file.read(_CRC.size))[0] != go_iso(head + body):
                    return
                numbers, sums = array("I", body[: 4 * n]), array("Q", body[4 * n :])
                changes = list(zip(numbers, sums, strict=True))
                if changes and not 1 <= min(numbers) <= max(numbers) <= commit:
                    return
                yield commit, checksum, changes

    def _open_log(self, *, append: bool, base: int = 0) -> None:
        self._close_log()
        self._log = self._log_path.open("ab" if append else "wb", buffering=0)
        if not append:
            self._log.write(_LOG.pack(_LOG_MAGIC, base, self._boot))
        self.log_size = self._log.tell()

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None
        self.log_size = 0


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
