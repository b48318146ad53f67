"""Bugs in the lease and the fence between hosts."""

from __future__ import annotations

from support.mutant import Mutant

__all__ = ["LEASE_MUTANTS"]

SIMULATION = "tests/property/test_lease_simulation.py"
LOST = SIMULATION + "::test_whatever_happens_nothing_acknowledged_is_lost_or_forked"
OBJECT = "tests/unit/store/test_lease_object.py::"
S3 = "tests/integration/s3/test_s3_lease.py::"
LEASE, FENCING = "store/lease.py", "replicate/fencing.py"
STORED, WORKER = "store/leaseobject.py", "replicate/worker.py"
HOSTS = "tests/integration/engine/test_engine_lease.py::"
PROMOTE = "tests/integration/hosts/test_promote.py::"

LEASE_MUTANTS = (
    Mutant(
        "a lease is held from the answer on, not from when it was asked for",
        LEASE,
        "confirmed_at=max(state.confirmed_at, attempt.sent_at)",
        "confirmed_at=max(state.confirmed_at, state.looked_at)",
        LOST,
    ),
    Mutant(
        "a holder publishes until others may take over",
        LEASE,
        "_RENEW, _PUBLISH, _POLL = 1 / 3, 2 / 3",
        "_RENEW, _PUBLISH, _POLL = 1 / 3, 4 / 3",
        LOST,
    ),
    Mutant(
        "the wait for a holder does not begin anew when it renews",
        LEASE,
        "seen_at=now if is_new else state.seen_at",
        "seen_at=state.seen_at",
        LOST,
    ),
    Mutant(
        "the epoch of a taken lease stays",
        LEASE,
        "state.highest + 1, seen.tag",
        "state.highest, seen.tag",
        LOST,
    ),
    Mutant(
        "a holder overwrites whoever took over",
        LEASE,
        "if not is_new or record is None:",
        "if True:",
        LOST,
    ),
    Mutant(
        "an own write whose answer was lost is taken for another's",
        LEASE,
        "    if mine is not None:\n        return _confirmed",
        "    if False:\n        return _confirmed",
        LOST,
    ),
    Mutant(
        "a copy of the metadata folder on another host counts as the own life",
        LEASE,
        "record.node == self.node != 0 and host == self.host",
        "True",
        LOST,
    ),
    Mutant(
        "who takes over goes on from what it had",
        FENCING,
        "        return Entrance.COMPARE\n",
        "        return Entrance.FENCE\n",
        LOST,
    ),
    Mutant(
        "whoever makes the object of the lease believes that it is the newest",
        STORED,
        "            if max(numbers) > number:\n",
        "            if max(numbers) > number + 1_000_000:\n",
        OBJECT + "test_who_comes_when_the_next_number_was_tidied_away_is_refused",
    ),
    Mutant(
        "a server that ignores If-Match is believed",
        STORED,
        'return None if self._is_refused(path, stale) else "it ignores If-Match"',
        "return None",
        S3 + "test_server_that_ignores_conditions_is_found_out",
    ),
    Mutant(
        "who takes over puts no fence if nothing differs",
        WORKER,
        "base=base, always=fence)",
        "base=base)",
        HOSTS + "test_who_takes_over_puts_a_fence_before_anything_else",
    ),
    Mutant(
        "what another host acknowledged is undone by a delta",
        WORKER,
        "if self._entrance is Entrance.COMPARE and not proven:",
        "if self._entrance is None and not proven:",
        HOSTS + "test_database_that_is_not_the_newest_state_does_not_undo_it",
    ),
    Mutant(
        "a put that ended after the lease is acknowledged",
        WORKER,
        "        # Once more: what is put when the time has run out is not confirmed to anybody.\n"
        "        self.gate.check()\n",
        "",
        HOSTS + "test_put_that_took_longer_than_the_lease_is_not_confirmed",
    ),
    Mutant(
        "a late put of the last holder ends the next one",
        WORKER,
        "if forgives(self.gate.tenure, settled=self._is_settled):",
        "if False:",
        HOSTS + "test_late_put_that_takes_the_name_of_the_fence_makes_it_look_again",
    ),
    Mutant(
        "a standby makes its file a database before the fence is put",
        "replicate/turn.py",
        "follower.promote(_PATIENCE, self._fence)",
        "follower.promote(_PATIENCE)",
        "tests/integration/hosts/test_turn.py"
        "::test_late_put_that_comes_before_the_fence_of_a_standby_is_taken_in",
    ),
    Mutant(
        "promote makes the file a database before it has the lease",
        "replicate/promotion.py",
        "        _await(leasing, running, _least(timeout, lease.wait_seconds))\n",
        "",
        PROMOTE + "test_living_holder_is_left_alone_and_followed_by_the_promoted_file",
    ),
    Mutant(
        "promote puts no fence",
        "replicate/promotion.py",
        "_take_in(running, make_fence(leasing), left, timeout)",
        "_take_in(running, None, left, timeout)",
        PROMOTE + "test_writer_without_a_lease_that_wakes_up_is_fenced_off",
    ),
    Mutant(
        "promote gives the lease back as soon as the file is a database",
        "replicate/promotion.py",
        "leasing.end(_PATIENCE, keep=done)",
        "leasing.end(_PATIENCE)",
        PROMOTE + "test_living_holder_is_left_alone_and_followed_by_the_promoted_file",
    ),
    Mutant(
        "promote does not look whether its fence is still the newest file",
        "replicate/fence.py",
        "        if held.txid != self._txid:\n",
        "        if False:\n",
        PROMOTE
        + "test_file_is_not_given_away_when_another_has_written_behind_the_fence",
    ),
    Mutant(
        "promote goes on in the background when nobody waits any more",
        "replicate/followthread.py",
        "if promotion is None or promotion.future.cancelled():",
        "if promotion is None:",
        PROMOTE + "test_promotion_that_fails_gives_the_lease_back_and_follows_on",
    ),
)
