"""Bugs in what follows a replica, and in mirrors."""

from __future__ import annotations

from support.mutant import Mutant

__all__ = ["FOLLOW_MUTANTS"]

LIVE = "tests/unit/restore/test_livefile.py::"
FOLLOWING = "tests/unit/restore/test_following.py::"
MIRROR = "tests/integration/engine/test_engine_mirror.py::"
KILLED = "tests/crash/test_follower_killed.py"

FOLLOW_MUTANTS = (
    Mutant(
        "followed file: the journal goes before the pages are written",
        "restore/livefile.py",
        "        change.write(self._fd)\n        os.unlink(journal)\n",
        "        os.unlink(journal)\n        change.write(self._fd)\n",
        KILLED,
    ),
    Mutant(
        "followed file: the journal has the size of the new state",
        "restore/livefile.py",
        "journal_header(records, nonce, old.commit, old.page_size)",
        "journal_header(records, nonce, goal.commit, old.page_size)",
        KILLED,
    ),
    Mutant(
        "followed file: the note of the next state replaces the present one",
        "restore/held.py",
        "(1 - self._slot) * _SLOT",
        "self._slot * _SLOT",
        KILLED,
    ),
    Mutant(
        "followed file: a note is overwritten that a power failure may need again",
        "restore/livefile.py",
        "        sync_directory(os.path.dirname(self.path))\n"
        "        self._notes.note(following)\n",
        "        self._notes.note(following)\n"
        "        sync_directory(os.path.dirname(self.path))\n",
        LIVE
        + "test_journal_that_comes_back_after_a_power_failure_finds_its_state_noted",
    ),
    Mutant(
        "followed file: readers are not told to drop their caches",
        "restore/livefile.py",
        "self._counter = _after(old.counter)",
        "self._counter = old.counter",
        LIVE + "test_every_step_makes_the_file_exactly_the_next_state",
    ),
    Mutant(
        "followed file: readers keep the schema of a source that was replaced",
        "restore/held.py",
        "(moved == 0 and before[100:] != after[100:])",
        "moved < -1",
        LIVE + "test_reader_forgets_the_schema_of_a_source_that_was_replaced",
    ),
    Mutant(
        "followed file: a new page that nothing brought is left a hole",
        "restore/livefile.py",
        "        if brought != expected:\n",
        "        if brought > expected:\n",
        "tests/unit/restore/test_livefile.py",
    ),
    Mutant(
        "followed file: what somebody else wrote is overwritten",
        "restore/livefile.py",
        "if old is None or not self.is_as_held():",
        "if old is None:",
        LIVE + "test_write_by_somebody_else_is_refused",
    ),
    Mutant(
        "follower: another history with the same last transaction is taken for ours",
        "restore/following.py",
        "same = header.post_checksum == held.checksum",
        "same = True",
        FOLLOWING + "test_replica_of_another_history_is_refused",
    ),
    Mutant(
        "follower: a replica that is gone is nothing new (#1515)",
        "restore/route.py",
        "    if not files:\n",
        "    if not files:\n        return IN_STEP\n    if not files:\n",
        FOLLOWING + "test_replica_that_is_gone_is_an_error",
    ),
    Mutant(
        "follower: a file that straddles its position is never taken (#1460)",
        "restore/route.py",
        "    steps = tuple(extend(files, txid))\n",
        "    steps = tuple(extend([f for f in files if f.min_txid > txid], txid))\n",
        FOLLOWING + "test_gap_is_bridged",
    ),
    Mutant(
        "follower: pages of a damaged file are among those before it",
        "restore/following.py",
        "                last = None  # some pages of the bad file may be among the others\n",
        "",
        FOLLOWING + "test_damaged_file_is_gone_around_or_is_an_error",
    ),
    Mutant(
        "follower: a promoted file is taken back by the next follower",
        "restore/livefile.py",
        "        self._notes.forget()\n",
        "",
        "tests/integration/follow/test_follower.py"
        "::test_promoted_file_continues_the_chain",
    ),
    Mutant(
        "mirror: confirmed before it is written",
        "replicate/mirroring.py",
        "        self._ready = pages, increment.state\n",
        "        self._confirm(increment.state.seq)\n"
        "        self._ready = pages, increment.state\n",
        MIRROR + "test_reader_in_the_way_is_waited_for_and_then_shown",
    ),
    Mutant(
        "mirror: what somebody wrote to it is overwritten",
        "replicate/mirroring.py",
        "not file.is_as_held() and not self._mirror.overwrite",
        "not file.is_as_held() and False",
        MIRROR + "test_what_is_at_the_path_is_not_overwritten",
    ),
    Mutant(
        "mirror: yesterday's file goes on",
        "replicate/mirroring.py",
        "if self._mirror.path_at(self._now()) == self._path:",
        "if self._path:",
        MIRROR + "test_dated_mirror_rolls_over_and_old_files_go",
    ),
)
