"""Repair: what a task found damaged or gone is made again, from whatever still has it.

In this order, which is that of cost:

1. it is read again: a store may have been confused for a moment;
2. the copy on local disk (``recent.py``);
3. the files of other levels that hold the same transactions, merged;
4. another replica of the same Replicator. It counts its TXIDs in its own way, so what it
   gives is renumbered, and taken only if the database checksums join with the neighbours
   that are here;
5. nothing has it, but nothing needs it either: other files lead to the newest state;
6. a new snapshot, from the source. What lay between is lost, and said to be.

Invariant: wrong bytes are deleted only once the right ones are at hand, or other files were
seen to replace them. That is the one case in which a name gets other bytes than it had: the
bytes that it should have had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from sqlitereplica.capture import write_ltx
from sqlitereplica.errors import (
    InvalidFileError,
    NotRestorableError,
    PosMismatchError,
)
from sqlitereplica.ltx import (
    HEADER_SIZE,
    Decoder,
    FileInfo,
    Header,
)
from sqlitereplica.replicate.history import Job
from sqlitereplica.replicate.merging import (
    BrokenFileError,
    Merged,
    merge_files,
    merging,
    paced,
    write_image,
)
from sqlitereplica.replicate.workshop import Workshop
from sqlitereplica.restore import decisive, plan_restore

__all__ = ["RepairTask", "exact_cover"]

_NEVER = 3600.0


def exact_cover(
    files: Iterable[FileInfo], low: int, high: int
) -> tuple[FileInfo, ...] | None:
    """Files that hold exactly the transactions ``low..high``, each once; None without.

    Pure. Of those that join, the one that reaches furthest is next, as in a plan.
    """
    inside = [f for f in files if low <= f.min_txid and f.max_txid <= high]
    cover: list[FileInfo] = []
    current = low - 1
    while current < high:
        joining = [f for f in inside if f.min_txid == current + 1]
        if not joining:
            return None
        cover.append(max(joining, key=lambda f: (f.max_txid, f.level)))
        current = cover[-1].max_txid
    return tuple(cover)


class RepairTask:
    """Heals files of one replica that were found broken."""

    job = Job("repair")

    def __init__(
        self,
        shop: Workshop,
        *,
        peers: Callable[[], Sequence[Workshop]],
        ask_snapshot: Callable[[], object],
    ) -> None:
        """``peers`` are the other replicas; ``ask_snapshot`` has one made soon."""
        self._shop, self._peers, self._ask_snapshot = shop, peers, ask_snapshot
        self._broken: dict[FileInfo, str] = {}
        self.last: str | None = None
        """What was healed last, how, and why it had to be."""

    def note(self, info: FileInfo, reason: str) -> None:
        """A file was found damaged or gone."""
        self._broken.setdefault(info, reason)

    @property
    def broken(self) -> tuple[FileInfo, ...]:
        """What waits to be healed."""
        return tuple(self._broken)

    def look(self) -> float:
        """Due while something is known to be broken."""
        return 0.0 if self._broken else _NEVER

    def run(self) -> None:
        """Heal what can be, and say how; raises StoreError when the store fails."""
        for info in self.broken:
            self._shop.go_on()
            how = self._heal(info)
            reason = self._broken.pop(info)
            file = f"level {info.level}, {info.name}"
            self.last = f"{file}: {how} ({reason})"
            self._shop.report("repair", level=30, file=file, how=how, reason=reason)

    def _heal(self, info: FileInfo) -> str:
        if self._is_sound(info):
            self._shop.catalog.add(info)
            return "it is sound"
        for source in (self._from_disk, self._from_levels, self._from_peers):
            try:
                found = source(info)
            except (InvalidFileError, PosMismatchError) as error:
                self._shop.report("repair-failed", error=error, file=info.name)
                continue
            if found is not None:
                how, merged = found
                self._shop.delete([info])
                self._shop.put(info.level, merged)
                return how
        if self._is_spare(info):
            self._shop.delete([info])
            return "other files lead to the newest state"
        self._shop.catalog.remove([info])
        self._ask_snapshot()
        return "a new snapshot is made"

    def _is_sound(self, info: FileInfo) -> bool:
        """Read all of it once more."""
        try:
            self._verify(self._shop, [info])
        except BrokenFileError:
            return False
        return True

    def _verify(self, shop: Workshop, files: Sequence[FileInfo]) -> None:
        with merging(shop.store, None, files) as (_, pages):
            for _ in paced(pages, 1, shop.gently):
                pass

    # -- where it may still be -------------------------------------------------------

    def _from_disk(self, info: FileInfo) -> tuple[str, Merged] | None:
        recent = self._shop.recent
        kept = None if recent is None else recent.open(info)
        if kept is None:
            return None
        path = self._shop.scratch("repair")
        with kept:
            decoder = Decoder(kept)
            write_ltx(path, decoder.header, decoder.pages())
        return "from the local copy", Merged(decoder.header, path)

    def _from_levels(self, info: FileInfo) -> tuple[str, Merged] | None:
        files = self._others(info)
        cover = _cover(files, info, 0)
        if not cover:
            return None
        shop = self._shop
        path = shop.scratch("repair")
        merged = merge_files(shop.store, shop.recent, cover, path, shop.gently)
        return f"from {len(cover)} files of other levels", merged

    def _from_peers(self, info: FileInfo) -> tuple[str, Merged] | None:
        for peer in self._peers():
            for shift in self._shifts(peer):
                found = self._from_peer(info, peer, shift)
                if found is not None:
                    return f"from {peer.name}", found
        return None

    def _shifts(self, peer: Workshop) -> list[int]:
        """By how much the TXIDs of a peer may differ from those here."""
        mine, theirs = self._shop.worker, peer.worker
        seq = min(mine.acked, theirs.acked)
        here, there = mine.txid_of(seq), theirs.txid_of(seq)
        same_line = [] if here is None or there is None else [there - here]
        return list(dict.fromkeys([*same_line, 0]))

    def _from_peer(self, info: FileInfo, peer: Workshop, shift: int) -> Merged | None:
        files = peer.catalog.files()
        cover = _cover(files, info, shift)
        if not cover:
            return None
        path = self._shop.scratch("repair")
        with merging(peer.store, peer.recent, cover) as (header, pages):
            header = replace(header, min_txid=info.min_txid, max_txid=info.max_txid)
            if not self._joins(info, header):
                return None
            found = paced(pages, header.page_size, self._shop.gently)
            if header.is_snapshot:
                return write_image(path, header, found)
            write_ltx(path, header, found)
        return Merged(header, path)

    def _joins(self, info: FileInfo, header: Header) -> bool:
        """Whether a file of other origin fits between what is here, by checksums."""
        before, after = set(), set()
        for other in self._others(info):
            if info.is_snapshot and other.max_txid == info.max_txid:
                after.add(self._header(other).post_checksum)
            elif not info.is_snapshot and other.max_txid == info.min_txid - 1:
                before.add(self._header(other).post_checksum)
            elif other.min_txid == info.max_txid + 1:
                after.add(self._header(other).pre_checksum)
        before.discard(0)
        after.discard(0)
        known = bool(before or after) and header.post_checksum != 0
        return (
            known
            and before <= {header.pre_checksum}
            and after <= {header.post_checksum}
        )

    def _header(self, info: FileInfo) -> Header:
        return Header.unpack(self._shop.store.get(info, 0, HEADER_SIZE))

    # -- what is left without it -----------------------------------------------------

    def _others(self, info: FileInfo) -> list[FileInfo]:
        broken = {info, *self._broken}
        return [f for f in self._shop.catalog.files() if f not in broken]

    def _is_spare(self, info: FileInfo) -> bool:
        """Whether the newest state is reached without it."""
        newest = max(f.max_txid for f in self._shop.catalog.files())
        plan = _plan(self._others(info), newest)
        if not plan:
            return False
        try:
            self._verify(self._shop, decisive(plan))
        except (BrokenFileError, PosMismatchError):
            return False
        return True


def _cover(
    files: Sequence[FileInfo], info: FileInfo, shift: int
) -> Sequence[FileInfo] | None:
    """Files of which ``info`` can be made, where TXIDs are higher by ``shift``."""
    if info.is_snapshot:
        return _plan(files, info.max_txid + shift)
    return exact_cover(files, info.min_txid + shift, info.max_txid + shift)


def _plan(files: Sequence[FileInfo], txid: int) -> Sequence[FileInfo] | None:
    try:
        return decisive(plan_restore(files, txid=txid))
    except NotRestorableError:
        return None  # that is the answer: these files do not lead there
