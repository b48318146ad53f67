"""Bugs in what touches the source database: ``capture`` and ``sqlite``."""

from __future__ import annotations

from support.mutant import Mutant

__all__ = ["SOURCE_MUTANTS"]

CAPTURE = "tests/integration/capture/test_capture.py::"
GROWTH = "tests/integration/capture/test_capture_growth.py::"
DELTAS = "tests/integration/engine/test_engine_deltas.py::"
SOURCE = "tests/integration/engine/test_engine_source.py::"

ANSWER = "test_commit_while_a_question_is_answered_is_in_the_answer"
REPLACED = "tests/integration/lifecycle/test_replaced_database.py::"

SOURCE_MUTANTS = (
    Mutant(
        "frames that a cut WAL lacks are passed over",
        "sqlite/source.py",
        "        if len(data) < size:\n            raise InvalidFileError(",
        "        if not data:\n            raise InvalidFileError(",
        "tests/integration/capture/test_capture_wal_cut.py"
        "::test_wal_cut_behind_a_frame_is_not_taken_for_all_of_it",
    ),
    Mutant(
        "a replica that was in step a moment ago is taken for one that is",
        "replicate/engine.py",
        '        pgnos = table.differs_from(base) or array("I", [1])\n',
        "        found = [1] if was_in_step else table.differs_from(base)\n"
        '        pgnos = array("I", found)\n',
        DELTAS + ANSWER,
    ),
    Mutant(
        "a stop while a database is still being read leaves it locked",
        "replicate/engine.py",
        "            self.capture.detach()\n"
        "        finally:\n            self.tables.close()\n",
        "            if self.capture.attached:\n                self.capture.detach()\n"
        "        finally:\n            self.tables.close()\n",
        "tests/integration/engine/test_engine_attach.py"
        "::test_stop_between_the_turns_lets_the_database_go",
    ),
    Mutant(
        "the WAL of a database that was replaced is left beside the new one",
        "sqlite/source.py",
        "                stack.callback(leftover.remove)\n"
        "                leftover.empty(self._connections)\n",
        "                pass\n",
        REPLACED + "test_moved_over_the_database_at_rest",
    ),
    Mutant(
        "the WAL is looked at before the database's name",
        "capture/capture.py",
        "        source.check_place()\n",
        "",
        SOURCE + "test_move_is_noticed_before_the_next_look_at_the_wal",
    ),
    Mutant(
        "a child of a fork keeps the connections that it inherited",
        "sqlite/forking.py",
        "    if may_close and not connection.calls:\n",
        "    if not connection:\n",
        "tests/integration/lifecycle/test_fork_and_exit.py"
        "::test_child_of_a_fork_joins_in_and_harms_nobody",
    ),
    Mutant(
        "a child replicates although SQLite's locks do not work in it",
        "replicate/replicator.py",
        "        if key is not None and is_open_here(key):\n",
        "        if key is not None and not is_open_here(key):\n",
        "tests/integration/lifecycle/test_fork_and_exit.py"
        "::test_child_with_inherited_connections_is_not_elected",
    ),
    Mutant(
        "growth pages that were never written are left out (#1199)",
        "capture/capture.py",
        "return [p for p in grown if p not in have and p != lock]",
        "return []",
        GROWTH + "test_growth_pages_that_sqlite_never_wrote_are_in_the_increment",
    ),
    Mutant(
        "pages past the commit size are kept (#881)",
        "capture/capture.py",
        "if p <= commit and p != lock}",
        "if p != lock}",
        GROWTH + "test_shrink_and_regrow_in_one_wal",
    ),
    Mutant(
        "a reused WAL of the same length is not noticed (#1037)",
        "capture/tail.py",
        "if index.salts != self.salts:",
        "if index.salts != self.salts and index.mx_frame != self.frame:",
        CAPTURE + "test_wal_reused_with_same_size_and_mtime_is_noticed",
    ),
    Mutant(
        "READ_LOCK(0) is relied on with frames not captured (#521)",
        "capture/tail.py",
        "return after.mx_frame == self.frame or not after.fully_backfilled",
        "return True",
        CAPTURE + "test_read_lock_zero_is_not_relied_on_with_frames_not_captured",
    ),
    Mutant(
        "a lock in a WAL that capture has not met is relied on",
        "capture/tail.py",
        "if before != after or after.salts != self.salts:",
        "if before != after:",
        CAPTURE + "test_reset_between_a_look_and_a_hand_over_is_followed_first",
    ),
    Mutant(
        "the end of a page log that a loss of power took is not missed",
        "capture/tablefile.py",
        "boot in (self._boot, _CLOSED)",
        "boot != b''",
        "tests/unit/capture/test_tablefile.py"
        "::test_log_of_another_boot_is_believed_only_if_it_was_closed",
    ),
    Mutant(
        "a page log that lacks a state stays",
        "capture/tablefile.py",
        "                self._forget()\n                self.error = error\n",
        "                self._close_log()\n                self.error = error\n",
        "tests/unit/capture/test_tablefile.py"
        "::test_log_that_lacks_a_state_is_not_left_behind",
    ),
    Mutant(
        "our own write lock is taken for that of a checkpointer",
        "capture/tail.py",
        "        if self._writing:\n",
        "        if False:\n",
        CAPTURE + "test_own_write_lock_is_not_taken_for_that_of_a_checkpointer",
    ),
    Mutant(
        "a connection that is being opened is taken for another copy of SQLite",
        "sqlite/hazards.py",
        "for look in range(_LOOKS):",
        "for look in range(1):",
        "tests/unit/sqlite/test_hazards.py",
    ),
    Mutant(
        "READ_LOCK(0) goes while a checkpointer may go by an old header",
        "capture/tail.py",
        "if self._overtaken and not self._outlive_checkpointers():",
        "if self._overtaken and self._sleep is None:",
        CAPTURE
        + "test_read_lock_zero_is_kept_while_a_checkpointer_may_have_been_overtaken",
    ),
    Mutant(
        "READ_LOCK(0) stays although a checkpointer waits for it",
        "capture/tail.py",
        "if now - self._refused[1] < _WAITS_AFTER:",
        "if now > self._refused[1] - _WAITS_AFTER:",
        CAPTURE + "test_checkpoint_right_after_a_reset_is_not_kept_waiting",
    ),
    Mutant(
        "a reset under our mark is taken for a legal one",
        "capture/tail.py",
        "        if self.mark:\n            raise ContinuityLostError",
        "        if False:\n            raise ContinuityLostError",
        CAPTURE + "test_reset_under_our_mark_is_noticed",
    ),
    Mutant(
        "the first reader ends before the next begins",
        "capture/tail.py",
        "            try:\n                self._other.begin_read()\n",
        "            try:\n                self._held.rollback()\n"
        "                self._other.begin_read()\n",
        "tests/integration/capture/test_capture_hand_over.py"
        "::test_nothing_gets_between_two_readers",
    ),
    Mutant(
        "frames past mxFrame are read: uncommitted ones",
        "sqlite/walindex.py",
        "        mx_frame=mx_frame,",
        "        mx_frame=mx_frame + (mx_frame > 0),",
        CAPTURE + "test_uncommitted_frames_are_never_taken",
    ),
    Mutant(
        "a view reads the database file only",
        "capture/view.py",
        "        if not self._frames:\n",
        "        if self._frames is not None:\n",
        CAPTURE + "test_view_does_not_see_later_commits",
    ),
    Mutant(
        "a replica that lost its place is not told what it misses",
        "capture/table.py",
        "        self.apply(self.commit, [(p, 0) for p in pgnos if p <= self.commit])",
        "        return",
        DELTAS + "test_replica_beyond_the_spool_comes_back_by_a_delta",
    ),
    Mutant(
        "what is pending goes before the pages that it lacks were read",
        "capture/capture.py",
        "        commit, pages = self.commit, self.pending\n",
        "        commit, pages = self.commit, self.pending\n"
        "        self._forget_pending()\n",
        GROWTH + "test_flush_that_finds_the_wal_index_busy_loses_nothing",
    ),
    Mutant(
        "times fall when the clock is set back (#771)",
        "capture/capture.py",
        "self.last_timestamp = max(self.last_timestamp, self._now_ms())",
        "self.last_timestamp = self._now_ms()",
        SOURCE + "test_times_never_fall_although_the_clock_is_set_back",
    ),
    Mutant(
        "everything is sent after a restart",
        "capture/tablefile.py",
        "        found, size = None, _LOG.size\n",
        "        found, size = None, _LOG.size\n        return None\n",
        "tests/unit/capture/test_tablefile.py",
    ),
    Mutant(
        "a replica counts as in step by its database checksum alone",
        "capture/table.py",
        "return self.page_size == other.page_size and self.sums == other.sums",
        "return self.checksum == other.checksum",
        "tests/integration/engine/test_engine_alike.py",
    ),
    Mutant(
        "the application's write is missed by a second copy of SQLite unseen",
        "sqlite/hazards.py",
        "        if _is_open_by_apsw(key):\n",
        "        if False:\n",
        "tests/integration/test_mixed_copies.py::"
        "test_stdlib_replicator_beside_apsw_application_is_refused",
    ),
    Mutant(
        "a deleted WAL goes unnoticed",
        "sqlite/source.py",
        "            if descriptors.file_id(self.path + suffix) != key:",
        "            if False:",
        SOURCE + "test_wal_removed_while_running_is_refused_by_name_and_survived",
    ),
    Mutant(
        "descriptors on the database are closed",
        "sqlite/descriptors.py",
        "            unlinked = os.fstat(entry.fd).st_nlink == 0",
        "            unlinked = True",
        "tests/integration/test_mixed_copies.py",
    ),
    Mutant(
        "0.3: checksums of WAL frames are not compared",
        "sqlite/walstream.py",
        "        if actual != stored:",
        "        if False:",
        "tests/unit/sqlite/test_walstream.py::test_every_changed_byte_is_noticed",
    ),
)
