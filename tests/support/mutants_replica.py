"""Bugs in what makes, keeps and reads a replica: all but ``capture`` and ``sqlite``."""

from __future__ import annotations

from support.mutant import Mutant

__all__ = ["REPLICA_MUTANTS"]

ACKNOWLEDGED = "tests/integration/engine/test_engine_acknowledgement.py::"
DELTAS = "tests/integration/engine/test_engine_deltas.py::"
SOURCE = "tests/integration/engine/test_engine_source.py::"
NEVER_LATER = "tests/property/test_restore_never_later.py::"
PINS = "tests/unit/store/test_store_pins.py::"
RETENTION = "tests/unit/replicate/test_retention.py::"
HISTORY = "tests/integration/engine/test_engine_history.py::"
OVER_COPY = "tests/integration/overcopy/test_restore_over_copy.py::"
MEANWHILE = "tests/integration/overcopy/test_restore_over_copy_meanwhile.py::"
LAYOUTS = "tests/integration/test_restore_layouts.py::"
OLD_DAMAGE = "tests/integration/old/test_old_damage.py::"
OLD_STATES = "tests/integration/old/test_old_states.py::"
WALK = "tests/unit/restore/test_verify_walk.py::"
VERIFY = "tests/integration/test_verify_faults.py::"
DECODER = "tests/unit/ltx/test_ltx_decoder.py"

REPLICA_MUTANTS = (
    Mutant(
        "a file that cannot be deleted keeps replicas from being told",
        "capture/increment.py",
        "            with suppress(OSError):\n                for path in",
        "            with suppress(KeyError):\n                for path in",
        "tests/integration/engine/test_engine_source.py"
        "::test_file_that_cannot_be_deleted_takes_no_replica_out_for_good",
    ),
    Mutant(
        "a store that another wrote to meanwhile is taken for the one that was left",
        "replicate/worker.py",
        "        if not is_as_left or position.node_id != self._node_id:\n",
        "        if not is_as_left:\n",
        "tests/integration/engine/test_engine_deltas.py"
        "::test_place_in_line_that_is_lost_while_another_writes",
    ),
    Mutant(
        "the end of the main thread is taken for that of the application",
        "replicate/ending.py",
        "        if not _others_go_on():\n",
        "        if main_thread_ended:\n",
        "tests/integration/lifecycle/test_endings.py"
        "::test_threads_that_outlive_the_main_one_are_replicated",
    ),
    Mutant(
        "an encrypted object may be cut off behind a chunk",
        "store/sealing.py",
        'return number.to_bytes(11, "big") + bytes([last])',
        'return number.to_bytes(12, "big")',
        "tests/property/test_sealing_codec.py::test_any_cut_is_refused",
    ),
    Mutant(
        "an encrypted object opens under the name of another",
        "store/sealing.py",
        "hashlib.sha256(header + name.encode())",
        "hashlib.sha256(header)",
        "tests/unit/store/test_store_encrypted.py::test_swapped_objects_are_refused",
    ),
    Mutant(
        "what is sent for an encrypted replica is plain where it is a file",
        "store/encrypted.py",
        "            yield path\n",
        "            yield data\n",
        "tests/unit/store/test_store_encrypted.py"
        "::test_what_is_stored_holds_no_plain_text",
    ),
    Mutant(
        "encrypted files are taken for damaged ones, and written over by a snapshot",
        "store/store.py",
        "        if start == 0 and is_sealed(data):\n            raise needs_keys(key)\n",
        "",
        "tests/integration/test_encryption.py"
        "::test_wrong_or_missing_keys_are_errors_and_change_nothing",
    ),
    Mutant(
        "what was asked of a process that is gone counts as done",
        "replicate/peer.py",
        "pending.future.add_done_callback(partial(_copy, one.future))",
        "_settle(one.future, None)",
        "tests/integration/workers/test_election.py"
        "::test_last_one_does_itself_what_it_had_asked_of_another",
    ),
    Mutant(
        "a process is answered about replicas that it did not name",
        "replicate/desk.py",
        "    if sorted(hello.replicas) != sorted(",
        "    if not hello.replicas or not sorted(",
        "tests/integration/workers/test_desk.py"
        "::test_who_replicates_something_else_is_refused",
    ),
    Mutant(
        "a failed drill is only talked about",
        "replicate/drill.py",
        "if report.latest_error is not None or report.restore_error is not None:",
        "if report.latest_error is not None:",
        "tests/integration/engine/test_engine_history.py"
        "::test_whole_file_of_wrong_content_is_bridged_by_a_snapshot",
    ),
    Mutant(
        "the read lock goes before the snapshot is read (#1164)",
        "replicate/delta.py",
        "    try:\n        yield view",
        "    view.release()\n    try:\n        yield view",
        DELTAS + "test_delta_is_one_state_although_the_application_goes_on",
    ),
    Mutant(
        "acknowledged before the put returned",
        "replicate/worker.py",
        "            self._put(0, txid, txid, data, state.timestamp)\n",
        "            self._confirm(state.seq)\n            self._coordinator.progressed()\n"
        "            self._put(0, txid, txid, data, state.timestamp)\n",
        ACKNOWLEDGED + "test_sync_is_not_acknowledged_before_the_put_returned",
    ),
    Mutant(
        "a place in line counts before the delta to it is stored",
        "replicate/worker.py",
        "self._behind = base if self.phase is Phase.STREAM else None",
        "self._behind = base",
        DELTAS + "test_place_in_line_that_is_lost_before_the_delta_was_stored",
    ),
    Mutant(
        "a replica's question is forgotten in a busy moment",
        "replicate/engine.py",
        "            request = self._requests[0]\n"
        "            answered = request.cancelled or self._answer(request)\n"
        "            # Only now: answering may raise, and the question must not get lost.\n"
        "            self._requests.popleft()\n",
        "            request = self._requests.popleft()\n"
        "            answered = request.cancelled or self._answer(request)\n",
        DELTAS + "test_question_of_a_replica_outlives_a_busy_moment",
    ),
    Mutant(
        "pages that were read under dropped locks are published",
        "replicate/delta.py",
        "        if page_checksums(first, run) != known:\n",
        "        if page_checksums(first, run) != known != known:\n",
        "tests/integration/engine/test_engine_view_ended.py",
    ),
    Mutant(
        "sync does not look whether the database is another file by now",
        "replicate/engine.py",
        "                self.capture.check()\n",
        "                pass\n",
        SOURCE + "test_sync_looks_whether_it_is_still_the_same_file",
    ),
    Mutant(
        "a history with a gap is continued as if it had none (#752)",
        "replicate/position.py",
        "    except (NotRestorableError, PosMismatchError):",
        "    except ZeroDivisionError:",
        DELTAS + "test_history_with_a_gap_is_continued_by_a_snapshot",
    ),
    Mutant(
        "TXIDs begin again after a restore (#781)",
        "replicate/worker.py",
        "        self._position, self.txid = position, position.txid",
        "        self._position, self.txid = position, 0",
        DELTAS + "test_replicator_on_a_fresh_restore_uploads_nothing",
    ),
    Mutant(
        "what failed is not run again when nothing is due: its error shows for ever",
        "replicate/history.py",
        "if wait <= 0 or entry.health.error is not None:",
        "if wait <= 0:",
        "tests/unit/replicate/test_history_tasks.py"
        "::test_failure_is_over_though_nothing_is_left_to_do",
    ),
    Mutant(
        "verify takes a pin made while it runs for a lost one",
        "restore/survey.py",
        "if isinstance(p, DamagedPin) or p.txid <= last]",
        "]",
        "tests/integration/test_verify_faults.py::test_pin_made_meanwhile_is_not_lost",
    ),
    Mutant(
        "retention deletes although a listing lacks what is known",
        "replicate/retaining.py",
        "        if self._is_healing():\n            return\n",
        "",
        HISTORY + "test_listing_that_lies_deletes_nothing",
    ),
    Mutant(
        "retention leaves files that nothing leads to for the rest of their grace",
        "replicate/retention.py",
        "for f in expired if f not in held",
        "for f in expired",
        RETENTION + "test_file_waits_for_those_that_it_leads_to",
    ),
    Mutant(
        "a put overwrites (rename instead of link)",
        "store/local.py",
        "        os.link(temporary, path)\n    except FileExistsError:",
        "        os.replace(temporary, path)\n    except FileExistsError:",
        "tests/unit/store/test_store_contract.py",
    ),
    Mutant(
        "a taken name counts as success without a comparison (#6580)",
        "store/store.py",
        "if not self._holds(key, data) and not self._holds(key, data):",
        "if False:",
        ACKNOWLEDGED + "test_other_bytes_under_our_name_stop_the_worker_for_good",
    ),
    Mutant(
        "the folder is not fsynced after the name was given (#1344)",
        "store/local.py",
        "    try:\n        _sync(path.parent)\n",
        "    try:\n        pass\n",
        "tests/unit/store/test_store_local.py",
    ),
    Mutant(
        "a short LZ4 block passes with a zero tail",
        "ltx/decoder.py",
        "if count != len(page):",
        "if count > len(page):",
        DECODER,
    ),
    Mutant(
        "verify trusts the database checksum to tell states apart",
        "restore/walk.py",
        "            return self.fingerprint == other.fingerprint\n",
        "            return self.checksum == other.checksum\n",
        WALK + "test_pages_that_change_in_the_same_bits_do_not_cancel_out",
    ),
    Mutant(
        "verify does not ask of what database a file was made",
        "restore/walk.py",
        "        if found != before.checksum:\n",
        "        if False:\n",
        WALK + "test_file_made_of_another_database_is_noticed",
    ),
    Mutant(
        "verify goes past files that retention took meanwhile",
        "restore/survey.py",
        "            if self._misses[key_of(file)] == 1 and",
        "            if False and",
        VERIFY + "test_files_behind_those_that_moved_are_held_against_states",
    ),
    Mutant(
        "verify believes a listing that was made while files moved",
        "restore/survey.py",
        "            if not any(wrong) or wrong == before:\n",
        "            if True:\n",
        VERIFY + "test_gap_that_a_new_listing_does_not_have_is_no_gap",
    ),
    Mutant(
        "a lost file that a snapshot bridges is no gap",
        "store/reach.py",
        "    return _not_led_over(found.values(), usable)\n",
        "    return []\n",
        "tests/unit/restore/test_verify_coverage.py",
    ),
    Mutant(
        "a pin that cannot be read is taken for none",
        "store/pins.py",
        "            raise pin.error\n",
        "            continue\n",
        PINS + "test_damaged_pin_stops_retention_and_can_be_taken_away",
    ),
    Mutant(
        "a pin is not checked after it was written",
        "store/pins.py",
        "        _state(store.list_all(), state.txid)\n",
        "        pass\n",
        PINS + "test_state_that_retention_deletes_meanwhile_is_not_pinned",
    ),
    Mutant(
        "a merged file has the time of its last input",
        "ltx/compactor.py",
        "        timestamp=max(header.timestamp for header in headers),\n",
        "",
        NEVER_LATER
        + "test_clock_set_back_never_gives_a_later_state_after_our_compaction",
    ),
    Mutant(
        "times of a new Replicator do not go on from the replica's",
        "replicate/engine.py",
        "capture.last_timestamp = max(capture.last_timestamp, position.timestamp)",
        "pass",
        "tests/integration/engine/test_engine_times.py",
    ),
    Mutant(
        "a plan's cost keeps what a wider file replaces",
        "store/reach.py",
        "base = point.base if point.file.min_txid > 1 else -1",
        "base = point.base",
        "tests/property/test_reach_model.py",
    ),
    Mutant(
        "an old copy is known by its database checksum",
        "restore/mark.py",
        "    digest.update(sums)\n",
        "    value = 0\n    for one in sums:\n        value ^= one\n"
        "    digest.update(value.to_bytes(8))\n",
        OVER_COPY + "test_two_pages_that_changed_alike_are_not_overlooked",
    ),
    Mutant(
        "what was made of an old copy is not read back",
        "restore/reuse.py",
        "if not output.has_pages(",
        "if False and not output.has_pages(",
        MEANWHILE + "test_copy_that_changes_while_it_is_used_is_noticed",
    ),
    Mutant(
        "a page is believed for the index alone",
        "restore/image.py",
        "        if actual != expected:\n            raise ChecksumMismatchError(\n"
        '                f"page',
        "        if False:\n            raise ChecksumMismatchError(\n"
        '                f"page',
        "tests/unit/restore/test_restore_copy_parts.py",
    ),
    Mutant(
        "an old database is closed under the locks of this process",
        "restore/oldcopy.py",
        "            self._descriptors.release(self._key)",
        "            os.close(os.dup(self.fd))",
        MEANWHILE + "test_locks_of_a_connection_opened_meanwhile_survive",
    ),
    Mutant(
        "a database is moved aside before its WAL has its second name",
        "restore/aside.py",
        "if _link(self.path, self.away, part)]",
        "if False]",
        "tests/crash/test_restore_crash.py::test_old_database_is_whole_at_every_step",
    ),
    Mutant(
        "a name for the old database is taken from who has it",
        "restore/aside.py",
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(",
        "os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(",
        "tests/integration/test_restore_keep_old.py",
    ),
    Mutant(
        "0.3: a gap between segments of a WAL is passed over (#1230)",
        "restore/replay.py",
        "                raise gap_at(plan.snapshot, done, file)",
        "                pass",
        OLD_DAMAGE + "test_missing_segment_is_a_gap",
    ),
    Mutant(
        "0.3: a missing WAL is passed over (#1230)",
        "restore/generations.py",
        "if segment.index != index or segment.offset != 0:",
        "if segment.index < index:",
        OLD_DAMAGE + "test_missing_wal_is_a_gap",
    ),
    Mutant(
        "0.3: offsets beyond 4 GiB have no names (#1442)",
        "store/generations.py",
        "|[1-9a-f][0-9a-f]{8,14}",
        "",
        "tests/unit/store/test_store_generations.py::test_key_is_parsed_back",
    ),
    Mutant(
        "0.3: frames behind the last commit are kept",
        "restore/backfill.py",
        "            raise UnfinishedError(self._committed)",
        "            pass",
        OLD_STATES + "test_transaction_in_two_segments_counts_when_it_is_whole",
    ),
    Mutant(
        "0.3: the checksum of a snapshot is not compared",
        "restore/lz4.py",
        "    if actual != expected:",
        "    if False:",
        "tests/unit/restore/test_restore_lz4.py::test_wrong_checksum_is_told",
    ),
    Mutant(
        "0.3: a snapshot that is ahead of the time is not noticed",
        "restore/ahead.py",
        "                return is_mixed",
        "                return False",
        "tests/property/test_restore_ahead.py::test_what_is_let_pass_is_a_state",
    ),
    Mutant(
        "0.3: a file counts from the beginning of its second",
        "store/generations.py",
        "microseconds // 1000 + 999",
        "microseconds // 1000",
        "tests/unit/store/test_store_generations.py::test_time_is_rounded_up",
    ),
    Mutant(
        "the cause of an error keeps its secret",
        "store/translate.py",
        ") from _harmless(error, secrets)",
        ") from error",
        "tests/unit/store/test_store_translate.py::test_message_shows_no_secret",
    ),
    Mutant(
        "the gate lets an answer go although something was committed",
        "integrations/gate.py",
        "if old is None or old != new], now",
        "if old is None], now",
        "tests/integration/gate/test_gate_wsgi.py::test_answer_waits_for_its_commit",
    ),
    Mutant(
        "the gate takes a commit in a new WAL for none",
        "sqlite/commitwatch.py",
        "return Look(held[1], index.salts, index.mx_frame, index.frame_checksum)",
        "return Look(held[1], b'', index.mx_frame, b'')",
        "tests/integration/gate/test_gate_look.py::"
        "test_commit_that_begins_the_wal_anew_is_seen",
    ),
    Mutant(
        "a wait for two replicas ends with one",
        "replicate/tickets.py",
        "if len(workers) - len(behind) >= wanted:",
        "if len(workers) - len(behind) >= min(1, wanted):",
        "tests/unit/replicate/test_tickets.py::"
        "test_each_caller_waits_for_as_many_replicas_as_it_needs",
    ),
    Mutant(
        "a position counts on the look that is under way",
        "replicate/bookmark.py",
        "return Position(self._life, self._look + 1, self._node)",
        "return Position(self._life, self._look, self._node)",
        "tests/unit/replicate/test_bookmark.py::"
        "test_state_of_a_position_holds_every_commit_before_it",
    ),
    Mutant(
        "0.3: the older of two layouts is restored",
        "restore/backup.py",
        "if max(old, default=_NEVER) > max(new, default=_NEVER):",
        "if not new:",
        LAYOUTS + "test_layout_written_to_last_is_restored",
    ),
)
