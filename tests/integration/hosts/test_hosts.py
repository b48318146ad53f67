"""Real processes on real stores fight for one replica: deploys, stops, kills, standbys.

TTLs are short, and nothing is decided by a clock of the test: all waits are for a condition.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.hosts import HostProcess, Place, begin, stored, values_of
from support.workers import Refused, until

LEASE = {"lease": 15}
STANDBY = {**LEASE, "standby": True}
SHORT = {"lease": 5}
"""Where somebody has to die; long enough for a busy machine not to kill the living."""
SHORT_STANDBY = {**SHORT, "standby": True}


only_folder = pytest.mark.parametrize("kind", ["folder"], indirect=True, scope="module")


def test_deploy_overlap_loses_and_forks_nothing(tmp_path: Path, place: Place) -> None:
    """The new one is up while the old one still commits; it goes on when that one ends."""
    old = HostProcess(tmp_path / "old", place, **LEASE)
    new = HostProcess(tmp_path / "new", place, **STANDBY)
    with old, new:
        begin(old, 1)
        new("start")
        until(lambda: new("status")["txid"] >= 1)
        status = new("status")
        assert (status["state"], status["lease"]["state"]) == ("standby", "waiting")
        assert status["lease"]["holder"].startswith("old:")
        with pytest.raises(Refused) as refused:
            new("sync")
        assert refused.value.answer["error"] == "LeaseHeldError"
        for value in range(2, 12):
            old.commit(value)
        old("write", 12)  # flushed by its stop
        old("stop")
        new("wait_active", 60)
        new("open")
        assert new("values") == list(range(1, 13))
        new.commit(13)
        status = new("status")
        assert (status["state"], status["lease"]["epoch"]) == ("running", 2)
        new("stop")
    assert stored(place, tmp_path) == list(range(1, 14))


def test_stopped_for_longer_than_the_ttl_it_wakes_up_as_a_zombie_and_is_told(
    tmp_path: Path, place: Place
) -> None:
    """SIGSTOP, another takes over, SIGCONT: its next sync raises, nothing of it is put."""
    old = HostProcess(tmp_path / "old", place, **SHORT)
    new = HostProcess(tmp_path / "new", place, **SHORT_STANDBY)
    with old, new:
        begin(old, 1)
        new("start")
        old.kill(signal.SIGSTOP)
        new("wait_active", 60)
        new("open")
        new.commit(2)
        old.begin("write", 666)
        old.kill(signal.SIGCONT)
        old.end()
        with pytest.raises(Refused) as refused:
            old("sync")
        assert refused.value.answer["error"] == "LeaseLostError"
        new.commit(3)
        with pytest.raises(Refused) as refused:
            old("stop")
        assert refused.value.answer["error"] == "LeaseLostError"
        new("stop")
    assert stored(place, tmp_path) == [1, 2, 3]


def test_killed_host_is_followed_by_its_standby_and_comes_back_as_one(
    tmp_path: Path, place: Place
) -> None:
    """What the killed one had not shipped is put aside, not overwritten and not undone."""
    first = HostProcess(tmp_path / "first", place, **SHORT_STANDBY)
    second = HostProcess(tmp_path / "second", place, **SHORT_STANDBY)
    with first, second:
        begin_as_standby(first, 1, 2)
        second("start")
        first("write", 777)  # never acknowledged
        first.kill()
        second("wait_active", 60)
        second("open")
        assert second("values") == [1, 2]
        second.commit(3)
        with HostProcess(tmp_path / "first", place, **SHORT_STANDBY) as again:
            again("start")
            until(lambda: again("status")["txid"] == second("status")["txid"])
            assert again("values") == [1, 2, 3]
            asides = list((tmp_path / "first").glob("app.db.before-*Z"))
            assert len(asides) == 1 and values_of(asides[0]) == [1, 2, 777]
            second("stop")
            again("wait_active", 60)
            again("open")
            again.commit(4)
            again("stop")
    assert stored(place, tmp_path) == [1, 2, 3, 4]


def begin_as_standby(host: HostProcess, *values: int) -> None:
    """The first host ever: nobody holds the lease, and there is no database yet."""
    host("start")
    until(lambda: host("status")["lease"]["state"] == "held")
    host("open")
    host("wait_active", 60)
    host.commit(*values)


@only_folder
def test_killed_host_goes_on_at_once_when_it_is_started_again(
    tmp_path: Path, place: Place
) -> None:
    """Its earlier life is over, so there is nothing to wait for; no commit is lost."""
    with HostProcess(tmp_path / "one", place, lease=3600) as host:
        begin(host, 1)
        host("write", 2)
        host.kill()
    with HostProcess(tmp_path / "one", place, lease=3600) as host:
        begin(host, 3)
        assert host("status")["lease"]["epoch"] == 2
        host("stop")
    assert stored(place, tmp_path) == [1, 2, 3]


@only_folder
def test_start_waits_for_the_lease_and_gives_up_in_time(
    tmp_path: Path, place: Place
) -> None:
    """Who comes second without being a standby; and then goes on from what was restored."""
    old = HostProcess(tmp_path / "old", place, **LEASE)
    new = HostProcess(tmp_path / "new", place, **LEASE)
    with old, new:
        begin(old, 1)
        new("restore")
        new.begin("start")
        until(lambda: old("told").count("upload") >= 1)
        old("stop")
        new.end()
        new("open")
        assert new("values") == [1]
        new.commit(2)
        new("stop")
    assert stored(place, tmp_path) == [1, 2]


@only_folder
def test_database_that_another_host_has_overtaken_is_refused(
    tmp_path: Path, place: Place
) -> None:
    """It would undo what that one acknowledged: start raises, nothing is put."""
    old = HostProcess(tmp_path / "old", place, **LEASE)
    new = HostProcess(tmp_path / "new", place, **LEASE)
    with old, new:
        begin(old, 1)
        new("restore")
        old("write", 2)
        old("stop")
        with pytest.raises(Refused) as refused:
            new("start")
        assert refused.value.answer["error"] == "DivergedError"
        assert new("status")["state"] == "stopped"
        new("restore")
        new("start")
        new("open")
        new.commit(3)
        new("stop")
    assert stored(place, tmp_path) == [1, 2, 3]


@only_folder
def test_lease_object_is_released_and_stays(tmp_path: Path, place: Place) -> None:
    """The next epoch is above it."""
    for epoch in (1, 2, 3):
        with HostProcess(tmp_path / "one", place, **LEASE) as host:
            begin(host, epoch)
            assert host("status")["lease"]["epoch"] == epoch
            host("stop")
            assert "lease-released" in host("told")
    assert os.path.exists(tmp_path / "one" / "app.db")
    assert stored(place, tmp_path) == [1, 2, 3]
