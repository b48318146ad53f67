"""Files held against states, page by page, where checksums of files say nothing."""

from __future__ import annotations

import io

import pytest

from sqlitereplica import ltx
from sqlitereplica.ltx import BinaryReader, FileInfo, Header
from sqlitereplica.restore import walk
from sqlitereplica.restore.walk import FileFailedError, Walk, reading_order

SIZE = 512

Pages = dict[int, bytes]


def page(seed: int) -> bytes:
    """A page that is like no other."""
    return bytes([seed, 255 - seed]) * (SIZE // 2)


def pages(*seeds: int) -> Pages:
    """Pages 1, 2 and so on."""
    return {pgno: page(seed) for pgno, seed in enumerate(seeds, 1)}


def checksum(state: Pages) -> int:
    """The database checksum of a state."""
    return ltx.database_checksum(ltx.page_checksum(p, d) for p, d in state.items())


class Files:
    """Files in memory, and a walk through them that counts second readings."""

    def __init__(self) -> None:
        self.contents: dict[FileInfo, bytes] = {}
        self.again: list[FileInfo] = []
        self.walk = Walk(self._reopen)

    def add(
        self,
        level: int,
        first: int,
        last: int,
        content: Pages,
        *,
        commit: int | None = None,
        before: Pages | None = None,
        after: Pages | None = None,
    ) -> FileInfo:
        """Add a file; ``before`` and ``after`` are the states that it records."""
        size = len(next(iter(content.values())))
        header = Header(
            page_size=size,
            commit=max(content) if commit is None else commit,
            min_txid=first,
            max_txid=last,
            timestamp=last * 1000,
            pre_checksum=checksum(before) if before else 0,
            post_checksum=checksum(after) if after else 0,
        )
        data = ltx.encode(header, sorted(content.items()))
        file = FileInfo(level, first, last, len(data), last * 1000)
        self.contents[file] = data
        return file

    def check(self, *files: FileInfo) -> None:
        """Check files in the given order."""
        for file in files:
            self.walk.check(file, io.BytesIO(self.contents[file]))

    def failures(self) -> list[tuple[FileInfo, str]]:
        """Check all files as they are to be; what failed, and the kind of its error."""
        found = []
        for file in reading_order(self.contents):
            while True:
                try:
                    self.check(file)
                except FileFailedError as failed:
                    self.walk.discard(failed.file)
                    found.append((failed.file, failed.error.kind))
                    if failed.file != file:
                        continue
                break
        return found

    def _reopen(self, file: FileInfo) -> BinaryReader:
        self.again.append(file)
        return io.BytesIO(self.contents[file])


@pytest.fixture
def files() -> Files:
    """No files yet."""
    return Files()


def chain(files: Files, count: int, *, signed: bool = True) -> list[Pages]:
    """Add level-0 files that each change page 2 of three; returns the states, from 0."""
    states: list[Pages] = [{}]
    for txid in range(1, count + 1):
        state = pages(1, 100 + txid, 3)
        content = state if txid == 1 else {2: state[2]}
        before = states[-1] if signed and txid > 1 else None
        files.add(
            0,
            txid,
            txid,
            content,
            commit=3,
            before=before,
            after=state if signed else None,
        )
        states.append(state)
    return states


@pytest.mark.parametrize("signed", [True, False])
def test_sound_chain_with_merged_files_and_snapshots_passes(
    files: Files, signed: bool
) -> None:
    """Each file is read once, whether it records checksums or not."""
    states = chain(files, 6, signed=signed)
    files.add(1, 2, 4, {2: states[4][2]}, commit=3)
    files.add(2, 1, 5, states[5])
    files.add(9, 1, 3, states[3], after=states[3] if signed else None)
    assert files.failures() == []
    assert files.again == []
    assert files.walk.signed == (7 if signed else 0)
    assert files.walk.timestamps[0, 2, 2] == 2000
    assert files.walk.incomplete() == {}


def test_merged_file_that_lacks_a_page_is_noticed(files: Files) -> None:
    """A compaction that loses a page makes a file that is valid by itself."""
    first, last = pages(1, 2, 3), pages(1, 12, 13)
    files.add(0, 1, 1, first)
    files.add(0, 2, 2, {2: last[2]}, commit=3)
    files.add(0, 3, 3, {3: last[3]}, commit=3)
    merged = files.add(1, 2, 3, {3: last[3]}, commit=3)
    assert [kind for _, kind in files.failures()] == ["conflict"]
    assert merged.max_txid == 3


def test_pages_that_change_in_the_same_bits_do_not_cancel_out(files: Files) -> None:
    """The database checksum cannot tell these two states apart; the walk does."""
    first, last = pages(1, 2, 3), pages(1, 2 ^ 64, 3 ^ 64)
    assert checksum(first) == checksum(last)
    files.add(0, 1, 1, first, after=first)
    files.add(0, 2, 2, {2: last[2], 3: last[3]}, before=first, after=last)
    lossy = files.add(1, 1, 2, first, after=last)
    assert files.failures() == [(lossy, "conflict")]


def test_content_that_is_not_what_the_header_records_is_noticed(files: Files) -> None:
    """The file checksum is right, and the pages are wrong."""
    states = chain(files, 2)
    wrong = files.add(0, 3, 3, {3: page(9)}, before=states[2], after=states[1])
    assert files.failures() == [(wrong, "content")]


def test_file_made_of_another_database_is_noticed(files: Files) -> None:
    """Its pages lead to what it records, but not from what is there."""
    states = chain(files, 2)
    after = {**states[2], 3: page(9)}
    foreign = files.add(0, 3, 3, {3: page(9)}, before=pages(7, 8, 9), after=after)
    assert files.failures() == [(foreign, "foreign")]


def test_snapshot_that_nothing_confirms_is_to_blame_and_not_the_chain(
    files: Files,
) -> None:
    """A snapshot of another database does not condemn the increments."""
    chain(files, 4)
    other = pages(7, 8, 9)
    snapshot = files.add(9, 1, 3, other, after=other)
    assert files.failures() == [(snapshot, "conflict")]
    assert files.again == []


def test_files_that_lead_nowhere_are_held_against_each_other(files: Files) -> None:
    """Behind a gap neighbours must join; a file of another database does not."""
    states = chain(files, 6)
    del files.contents[next(f for f in files.contents if f.max_txid == 3)]
    foreign = files.add(0, 7, 7, {3: page(9)}, before=pages(7, 8, 9), after=states[1])
    assert files.failures() == [(foreign, "foreign")]


def test_state_behind_a_gap_is_held_against_the_snapshot_that_bridges_it(
    files: Files,
) -> None:
    """A file that cannot be applied still records what it should lead to."""
    states = chain(files, 5)
    del files.contents[next(f for f in files.contents if f.max_txid == 3)]
    other = {**states[5], 1: page(99)}
    files.add(9, 1, 5, other, after=other)
    [last] = [f for f in files.contents if f.min_txid == 5]
    assert files.failures() == [(last, "conflict")]


def test_name_and_header_have_to_agree(files: Files) -> None:
    """A file under the name of another is not taken for it."""
    states = chain(files, 2)
    [file] = [f for f in files.contents if f.max_txid == 2]
    data = files.contents.pop(file)
    renamed = FileInfo(0, 3, 3, file.size, 0)
    files.add(0, 2, 2, {2: states[2][2]}, commit=3)
    files.contents[renamed] = data
    assert files.failures() == [(renamed, "name")]


def test_page_size_changes_only_with_a_snapshot(files: Files) -> None:
    """All pages in level 0 and a snapshot of the same state begin anew."""
    chain(files, 2)
    large = {1: page(1) * 2, 2: page(2) * 2}
    step = files.add(0, 3, 3, large, after=large)
    assert files.failures() == [(step, "page-size")]
    again = Files()
    chain(again, 2)
    again.add(0, 3, 3, large, after=large)
    again.add(9, 1, 3, large, after=large)
    again.add(0, 4, 4, {2: page(9) * 2}, before=large, after={**large, 2: page(9) * 2})
    assert again.failures() == []


def test_size_that_the_files_cannot_hold_is_refused_before_allocating(
    files: Files,
) -> None:
    """A small file cannot ask for gigabytes of memory."""
    chain(files, 1)
    hostile = files.add(0, 2, 2, {2: page(9)}, commit=ltx.MAX_COMMIT)
    assert files.failures() == [(hostile, "commit")]


def test_growth_without_its_pages_makes_a_state_incomplete(files: Files) -> None:
    """The chain goes on, and is whole again once the page is there."""
    files.add(0, 1, 1, pages(1, 2))
    hole = files.add(0, 2, 2, {4: page(4)}, commit=5)
    files.add(0, 3, 3, {3: page(3)}, commit=5)
    files.add(0, 4, 4, {5: page(5)}, commit=5)
    files.add(1, 1, 4, pages(1, 2, 3, 4, 5))
    assert files.failures() == []
    missing = {f.max_txid: count for f, count in files.walk.incomplete().items()}
    assert missing == {2: 2, 3: 1}
    assert hole in files.walk.incomplete()


def test_page_that_is_missing_and_dropped_again_is_not_missed(files: Files) -> None:
    """A database that shrinks needs no page that it has no more."""
    files.add(0, 1, 1, pages(1, 2))
    files.add(0, 2, 2, {4: page(4)}, commit=4)
    files.add(0, 3, 3, {1: page(7)}, commit=2)
    files.add(9, 1, 3, pages(7, 2))
    assert files.failures() == []
    assert [f.max_txid for f in files.walk.incomplete()] == [2]


def test_state_that_a_snapshot_gives_whole_is_not_incomplete(files: Files) -> None:
    """The walk goes on with it; what is missing in an increment is no loss."""
    files.add(0, 1, 1, pages(1, 2))
    files.add(0, 2, 2, {4: page(4)}, commit=4)
    files.add(9, 1, 2, pages(1, 2, 3, 4))
    files.add(0, 3, 3, {1: page(7)}, commit=4)
    files.add(9, 1, 3, pages(7, 2, 3, 4))
    assert files.failures() == []
    assert files.walk.incomplete() == {}


def test_pages_before_a_shrink_do_not_come_back(files: Files) -> None:
    """A database that shrank and grew is held against one that never shrank."""
    states = [pages(1, 2, 3), pages(5), pages(5, 6, 3)]
    first, shrunk, last = states
    files.add(0, 1, 1, first, after=first)
    files.add(0, 2, 2, shrunk, commit=1, before=first, after=shrunk)
    files.add(0, 3, 3, {2: page(6), 3: page(3)}, before=shrunk, after=last)
    files.add(1, 2, 3, {1: page(5), 2: page(6), 3: page(3)}, before=first, after=last)
    stale = files.add(9, 1, 3, pages(5, 2, 3))
    assert files.failures() == [(stale, "conflict")]


@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_file_over_a_chain_that_ends_within_it_is_needed_again(
    files: Files, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """It is checked where it begins, and leads on where the chain ends."""
    monkeypatch.setattr(walk, "_KEPT_BYTES", kept)
    states = chain(files, 7)
    merged = files.add(1, 2, 5, {2: states[5][2]}, commit=3, after=states[5])
    for txid in (4, 5):
        del files.contents[next(f for f in files.contents if f.min_txid == txid)]
    assert files.failures() == []
    assert files.again == ([] if kept else [merged])
    wrong = files.add(0, 8, 8, {2: page(9)}, before=states[6], after=states[7])
    with pytest.raises(FileFailedError) as caught:
        files.check(wrong)
    assert caught.value.error.kind == "foreign", "the walk has reached the end"


def test_second_reading_that_fails_names_the_file_that_was_read(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk goes on without it, if it can."""
    monkeypatch.setattr(walk, "_KEPT_BYTES", 0)
    states = chain(files, 6)
    merged = files.add(1, 2, 5, {2: states[5][2]}, commit=3, after=states[5])
    missing = [f for f in files.contents if f.min_txid in (4, 5) and f.level == 0]
    for file in missing:
        del files.contents[file]
    *most, last = reading_order(files.contents)
    files.check(*most)
    files.contents[merged] = b"?" + files.contents[merged][1:]
    with pytest.raises(FileFailedError) as caught:
        files.check(last)
    assert (caught.value.file, caught.value.error.kind) == (merged, "magic")
    files.walk.discard(merged)
    files.check(last)


def test_new_file_for_what_was_passed_is_held_against_it(files: Files) -> None:
    """Compaction goes on while the files are read."""
    states = chain(files, 5)
    assert files.failures() == []
    good = files.add(1, 2, 4, {2: states[4][2]}, commit=3, after=states[4])
    bad = files.add(2, 2, 4, {2: states[4][2]}, commit=3, after=states[3])
    image = files.add(9, 1, 4, states[3], after=states[3])
    files.check(good)
    for file in (bad, image):
        with pytest.raises(FileFailedError) as caught:
            files.check(file)
        assert (caught.value.file, caught.value.error.kind) == (file, "conflict")


def test_files_that_are_gone_are_not_used_to_go_on(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a new listing does not have is not read again."""
    monkeypatch.setattr(walk, "_KEPT_BYTES", 0)
    states = chain(files, 6)
    merged = files.add(1, 2, 5, {2: states[5][2]}, commit=3, after=states[5])
    for txid in (4, 5):
        del files.contents[next(f for f in files.contents if f.min_txid == txid)]
    *most, last = reading_order(files.contents)
    files.check(*most)
    files.walk.retain({(f.level, f.min_txid, f.max_txid) for f in most if f != merged})
    files.check(last)
    assert files.again == []


def test_lock_page_is_missed_by_nobody(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images and increments that pass it agree; it is no hole."""
    for module in ("format", "decoder", "encoder"):
        monkeypatch.setattr(f"sqlitereplica.ltx.{module}.lock_pgno", lambda size: 3)
    monkeypatch.setattr(walk, "lock_pgno", lambda size: 3)
    small, large = pages(1, 2), {1: page(1), 2: page(2), 4: page(4), 5: page(5)}
    files.add(0, 1, 1, small, after=small)
    files.add(0, 2, 2, {4: page(4), 5: page(5)}, before=small, after=large)
    files.add(9, 1, 2, large, after=large)
    files.add(0, 3, 3, {2: page(2)}, commit=2, before=large, after=small)
    files.add(0, 4, 4, {4: page(4)}, before=small, after={**small, 4: page(4)})
    files.add(1, 1, 4, {**small, 4: page(4)})
    hole = files.add(0, 5, 5, {5: page(5)}, commit=6)
    assert files.failures() == []
    files.add(0, 6, 6, {6: page(6)}, commit=6)
    files.check(*[f for f in files.contents if f.min_txid == 6])
    assert files.walk.incomplete() == {hole: 1}
