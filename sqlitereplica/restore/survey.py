"""Listing and reading all files of a replica that lives on meanwhile.

Retention and compaction delete files between the listing and the moment when they are
read. A file that is gone is only a loss if a new listing still has it, or has nothing in
its place: so the replica is listed anew and judged by that. The same before anything at
all is said to be wrong: it must be so in two listings, and a file that looks damaged is
read twice. New files are read only as far as they hold transactions of the first listing;
the verification of a busy replica has an end.

A store that stops to answer is no finding. If a file cannot be read, the store is asked
for something else, and if that works, only the file is to blame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from sqlitereplica.errors import (
    NotRestorableError,
    SQLiteReplicaError,
    StoreError,
    VerifyStoppedError,
)
from sqlitereplica.ltx import (
    HEADER_SIZE,
    INDEX_TAIL_SIZE,
    PAGE_HEADER_SIZE,
    BinaryReader,
    FileInfo,
)
from sqlitereplica.restore.coverage import Coverage, FileKey, Note, cover, key_of
from sqlitereplica.restore.fetch import Prefetch
from sqlitereplica.restore.generations import plan_generation
from sqlitereplica.restore.walk import FileFailedError, Walk, reading_order
from sqlitereplica.store import GenerationFile, LTXStore, Pin
from sqlitereplica.store.chains import is_usable
from sqlitereplica.store.pins import DamagedPin, read_pins

if TYPE_CHECKING:
    from fsspec.callbacks import Callback

__all__ = ["Choose", "Damage", "Survey", "Watch"]

Choose: TypeAlias = Callable[[Sequence[FileInfo]], Iterable[FileInfo]]
"""Picks, of a listing, the files to read."""

_SMALLEST_FILE = HEADER_SIZE + PAGE_HEADER_SIZE + 1 + INDEX_TAIL_SIZE
_MOST_LISTINGS = 50
_MOST_VERDICTS = 16
"""What is wrong shows twice in a row; what does not is a replica that moves."""
_MOST_UNREADABLE = 16
"""Files in a row that cannot be read; then it is the store."""
_GONE = {"missing", "short"}


class Watch:
    """Told of every piece that was read. ``read`` counts bytes.

    ``pace`` is called with the bytes of a piece, so that it can sleep; ``stop`` is asked
    then whether to end.
    """

    def __init__(
        self,
        replica: str,
        *,
        pace: Callable[[int], object] | None = None,
        stop: Callable[[], bool] | None = None,
        callback: Callback | None = None,
    ) -> None:
        self.read = 0
        self._replica = replica
        self._pace, self._stop, self._callback = pace, stop, callback

    def expect(self, size: int) -> None:
        """Say that ``size`` more bytes are to be read."""
        if self._callback is not None:
            self._callback.set_size(self.read + size)

    def advance(self, size: int) -> None:
        """Say that ``size`` bytes have been; raises as ``tick``."""
        self.read += size
        if self._callback is not None:
            self._callback.relative_update(size)
        if self._pace is not None:
            self._pace(size)
        self.tick()

    def breathe(self) -> None:
        """Pause or end in the middle of other work; raises as ``tick``."""
        if self._pace is not None:
            self._pace(0)
        self.tick()

    def tick(self) -> None:
        """Raise VerifyStoppedError if it is time to end."""
        if self._stop is not None and self._stop():
            raise VerifyStoppedError(self._replica)


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not to be used: what is wrong in a word, and for people."""

    file: FileInfo
    kind: str
    reason: str


class Survey:
    """What is known of the files of one replica. Not thread-safe.

    ``bad`` has the files that are not to be used, ``incomplete`` those that leave pages
    missing though they lead on.
    """

    def __init__(
        self, store: LTXStore, watch: Watch, *, parallel: int, at_least: int = 0
    ) -> None:
        """Begin with nothing known. ``at_least`` is a transaction that must be there."""
        self.files: list[FileInfo] = []
        self.bad: dict[FileKey, Damage] = {}
        self.incomplete: list[Damage] = []
        self.notes: list[Note] = []
        self._pins: list[Pin | DamagedPin] = []
        self._generations: Sequence[GenerationFile] = ()
        self.files_signed = 0
        self._store, self._watch, self._parallel = store, watch, parallel
        self._at_least = at_least
        self._end = self._last_pin = 0
        self._listings = 0
        self._walk = Walk(self._reopen)
        self._done: set[FileKey] = set()
        self._ever_done: set[FileKey] = set()
        self._misses: Counter[FileKey] = Counter()
        self._silent = 0

    @property
    def files_read(self) -> int:
        """Files that were read in full and are sound."""
        return len(self._ever_done)

    @property
    def damaged_pins(self) -> tuple[str, ...]:
        """The names of pins that cannot be read."""
        return tuple(pin.name for pin in self._pins if isinstance(pin, DamagedPin))

    def lost_pins(self, coverage: Coverage) -> tuple[Pin, ...]:
        """The pins of states that cannot be restored."""
        pins = (pin for pin in self._pins if isinstance(pin, Pin))
        return tuple(pin for pin in pins if not coverage.has(pin.txid))

    @property
    def has_found_damage(self) -> bool:
        """Whether a file is bad that the listing alone does not show as such."""
        return any(_damage_by_listing(bad.file) is None for bad in self.bad.values())

    def settle(self, choose: Choose) -> Coverage:
        """List, read what ``choose`` picks, and judge, until what is wrong is certain.

        Raises:
            StoreError: The store does not answer.
            VerifyStoppedError: It is time to end.
        """
        self._walk, self._done = Walk(self._reopen), set()
        before: object = None
        for _ in range(_MOST_VERDICTS):
            self._list()
            self._read(choose)
            coverage = self._judge()
            lacks = max(coverage.states, default=0) < self._at_least
            lost_pins = self.lost_pins(coverage)
            wrong = (
                coverage.gaps,
                coverage.latest_error,
                set(self.bad),
                lacks,
                lost_pins,
                self.damaged_pins,
            )
            if not any(wrong) or wrong == before:
                break
            before = wrong
        self.files_signed = self._walk.signed
        return coverage

    def condemn(self, file: FileInfo, error: SQLiteReplicaError) -> None:
        """Note that a file is not to be used."""
        kind = error.kind
        if isinstance(error, StoreError) and kind not in _GONE:
            kind = "unreadable"
        reason = str(error)
        if kind == "missing":
            reason = "the listing has it, but it is not there"
        self.bad[key_of(file)] = Damage(file, kind, reason)
        self._walk.discard(file)

    # -- listing ---------------------------------------------------------------------

    def _list(self) -> None:
        """List anew, and forget what is not there any more."""
        self._watch.tick()
        self._listings += 1
        pins = read_pins(self._store)  # first: what they keep is listed then
        self._generations = self._store.list_generations()
        listed = self._store.list_all()
        if not self._end:
            newest = max((file.max_txid for file in listed), default=0)
            self._end = max(newest, self._at_least)
            self._last_pin = max(
                (p.txid for p in pins if isinstance(p, Pin)), default=0
            )
        # What was pinned since is beyond the files that are looked at.
        last = max(self._end, self._last_pin)
        self._pins = [p for p in pins if isinstance(p, DamagedPin) or p.txid <= last]
        self.files = [file for file in listed if file.min_txid <= self._end]
        keys = {key_of(file) for file in self.files}
        self.bad = {key: bad for key, bad in self.bad.items() if key in keys}
        self._walk.retain(keys)
        for file in self.files:
            damage = _damage_by_listing(file)
            if damage is not None:
                self.bad[key_of(file)] = damage

    def _judge(self) -> Coverage:
        """Judge what was listed, with the times of the headers that were read."""
        times = self._walk.timestamps
        files = [
            replace(file, timestamp=times.get(key_of(file), file.timestamp))
            for file in self.files
        ]
        missing = self._walk.incomplete()
        self.incomplete = [
            Damage(
                file,
                "incomplete",
                f"{count} pages by which the database grew are in no file",
            )
            for file, count in missing.items()
            if key_of(file) not in self.bad
        ]
        ends = {damage.file.max_txid for damage in self.incomplete}
        return self._with_generations(cover(files, self.bad.keys(), ends))

    def _with_generations(self, coverage: Coverage) -> Coverage:
        """Add what there is to say of files of Litestream 0.3, which count no TXIDs."""
        if not self._generations:
            return coverage
        text = (
            f"{len(self._generations)} files of Litestream 0.3 are not read; the newest"
            " state of all is what level='restore' restores"
        )
        notes = (*coverage.notes, Note(kind="generations", text=text))
        error = coverage.latest_error
        if not self.files:
            try:
                plan_generation(self._generations)
            except NotRestorableError as why:
                error = str(why)
            else:
                error = None
        return replace(coverage, notes=notes, latest_error=error)

    # -- reading ---------------------------------------------------------------------

    def _read(self, choose: Choose) -> None:
        while todo := self._todo(choose):
            self._watch.expect(sum(file.size for file in todo))
            try:
                self._check_all(todo)
            except _GoneError:
                self._list()

    def _todo(self, choose: Choose) -> list[FileInfo]:
        usable = [file for file in self.files if key_of(file) not in self.bad]
        wanted = {key_of(file): file for file in choose(usable)}
        return reading_order(f for key, f in wanted.items() if key not in self._done)

    def _check_all(self, todo: Sequence[FileInfo]) -> None:
        fetching = Prefetch(self._store.get, todo, threads=self._parallel)
        with fetching as fetched:
            for file, reader in fetched:
                if key_of(file) not in self.bad:
                    self._check(file, reader)

    def _check(self, file: FileInfo, reader: BinaryReader) -> None:
        """Check a file, twice if it looks wrong: the bytes may be hurt on their way."""
        first: FileFailedError | None = None
        while True:
            try:
                self._walk.check(file, _Watched(file, reader, self._watch))
            except FileFailedError as failed:
                if isinstance(failed.error, StoreError):
                    self._unreadable(failed.file, failed.error)
                elif failed.file != file or first is not None:
                    self.condemn(failed.file, failed.error)
                else:
                    first = failed
                if key_of(file) in self.bad:
                    return
            else:
                break
            reader = self._store.open_file(file)
        self._done.add(key_of(file))
        self._ever_done.add(key_of(file))
        self._silent = 0
        if first is not None:
            where = f"level {file.level}, {file.name}"
            text = f"{where} was read wrongly once, and then rightly: {first}"
            self.notes.append(Note(kind="unstable", text=text))

    def _unreadable(self, file: FileInfo, error: StoreError) -> None:
        """Find out whether a file is gone, damaged, or the store does not answer.

        Raises:
            StoreError: It does not.
            _GoneError: It has to be listed anew to know.
        """
        if error.kind in _GONE:
            self._misses[key_of(file)] += 1
            if self._misses[key_of(file)] == 1 and self._listings < _MOST_LISTINGS:
                raise _GoneError
        else:
            self._silent += 1
            if self._silent > _MOST_UNREADABLE:
                raise error
            self._store.list_level(file.level, min_txid=file.min_txid)
        self.condemn(file, error)

    def _reopen(self, file: FileInfo) -> BinaryReader:
        return _Watched(file, self._store.open_file(file), self._watch)


class _GoneError(Exception):
    """A file is not where the listing has it."""


class _Watched:
    """A reader that counts, waits and ends as told, and says which file fails."""

    def __init__(self, file: FileInfo, reader: BinaryReader, watch: Watch) -> None:
        self._file, self._reader, self._watch = file, reader, watch

    def read(self, n: int, /) -> bytes:
        """Return 1..n bytes, or ``b""`` at the end of the file."""
        try:
            data = self._reader.read(n)
        except StoreError as error:
            raise FileFailedError(self._file, error) from error
        self._watch.advance(len(data))
        return data


def _damage_by_listing(file: FileInfo) -> Damage | None:
    """What the listing alone tells about a file that cannot be right."""
    if not is_usable(file):
        reason = "a snapshot begins with transaction 1: this is no whole database"
        return Damage(file, "no-image", reason)
    if file.size == 0:
        return Damage(file, "empty", "it has no bytes")
    if file.size < _SMALLEST_FILE:
        reason = f"{file.size} bytes are too few for an LTX file"
        return Damage(file, "truncated", reason)
    return None
