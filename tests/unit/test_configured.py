"""Descriptions of replication, as settings and configuration files have them."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from sqlitereplica import Mirror, Replica, Retention
from sqlitereplica.integrations.configured import (
    destinations_from,
    replicas_from,
    replicator_from,
)
from sqlitereplica.integrations.named import Replicators
from sqlitereplica.testing import FaultyStore, MemoryStore, since

MONTH = Retention(window="30d", daily=30)


@pytest.mark.parametrize(
    ("description", "wanted"),
    [
        ("backups/{name}", [Replica("backups/main")]),
        (Path("backups"), [Replica(Path("backups"))]),
        (["a/{name}", Path("b")], [Replica("a/main"), Replica(Path("b"))]),
        (Replica("a", name="x"), [Replica("a", name="x")]),
        ({"url": "a", "name": "x"}, [Replica("a", name="x")]),
        ({"replicas": "a"}, [Replica("a")]),
        (
            ["a", {"mirror": "b/{name}-%Y.db", "keep": 3}],
            [Replica("a"), Mirror("b/main-%Y.db", keep=3)],
        ),
        ({"mirror": "b.db", "overwrite": True}, [Mirror("b.db", overwrite=True)]),
        (
            {
                "replicas": [
                    {"url": "a/{name}", "retention": {"window": "30d", "daily": 30}},
                    {"url": "b", "retention": "7d"},
                ]
            },
            [Replica("a/main", retention=MONTH), Replica("b", retention="7d")],
        ),
    ],
)
def test_each_form_names_the_same_replicas(
    description: Any, wanted: list[Replica | Mirror]
) -> None:
    """A URL, a folder, a value, a mapping, and lists of them."""
    assert destinations_from("main", description) == wanted
    options = replicator_from("main", "a.db", description)._options
    assert [*options.replicas, *options.mirrors] == wanted
    assert replicas_from("main", description) == list(options.replicas)


def test_other_keys_are_arguments_of_the_replicator() -> None:
    """They reach it, and ``connect`` is only a default."""
    description = {
        "replicas": "a",
        "sync_interval": 0.25,
        "retention": {"window": "30d", "daily": 30},
    }
    options = replicator_from("main", "a.db", description, connect=connect)._options
    assert (options.sync_interval, options.history.retention) == (0.25, MONTH)
    assert options.connect is connect
    chosen = {**description, "connect": sqlite3.connect}
    replicator = replicator_from("main", "a.db", chosen, connect=connect)
    assert replicator._options.connect is sqlite3.connect
    assert "retention" in description


def connect(path: str) -> sqlite3.Connection:
    """Some application's own way."""
    return sqlite3.connect(path)


@pytest.mark.parametrize(
    ("description", "why"),
    [
        ({}, "at least one destination"),
        ([], "at least one destination"),
        ({"replicas": "a", "sync_intervall": 1}, "did you mean 'sync_interval'"),
        ({"replica": "a"}, "did you mean 'replicas'"),
        ({"replicas": {"url": "a", "retenton": 1}}, "did you mean 'retention'"),
        ({"replicas": {"mirror": "a", "kep": 1}}, "did you mean 'keep'"),
        ({"replicas": "a", "health": {"max_lag": -1}}, "max_lag"),
        ({"replicas": "a", "health": {"max_lagg": 1}}, "did you mean 'max_lag'"),
        ({"replicas": [{"uri": "a"}]}, "uri"),
        ({"replicas": "a", "retention": {"windw": 3}}, "did you mean 'window'"),
        ({"replicas": "a", "retention": "soon"}, "soon"),
        (5, "not iterable"),
    ],
)
def test_nonsense_is_refused_with_the_name_of_the_database(
    description: Any, why: str
) -> None:
    """Whoever reads the error knows which entry to look at, and what is wrong there."""
    with pytest.raises(ValueError, match=rf"(?s)replication of main: .*{why}"):
        replicator_from("main", "a.db", description)


def database(folder: Path, name: str) -> Path:
    """A WAL database."""
    path = folder / name
    connection = sqlite3.connect(path)
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table t(x)")
    connection.close()
    return path


def group_of(folder: Path, **stores: MemoryStore) -> Replicators:
    """A Replicator for each store."""
    return Replicators(
        {
            name: replicator_from(
                name,
                database(folder, name),
                {
                    "replicas": store.replica,
                    "stop_timeout": 0.5 if isinstance(store, FaultyStore) else 60,
                },
            )
            for name, store in stores.items()
        }
    )


def test_group_is_started_reported_and_stopped_together(tmp_path: Path) -> None:
    """All of them run, the report is one value, and starting again changes nothing."""
    group = group_of(tmp_path, a=MemoryStore(), b=MemoryStore())
    assert (group.report()["ok"], list(group)) == (False, ["a", "b"])
    group.start()
    group.start()
    for replicator in group.values():
        replicator.sync()
    report = group.report()
    assert report["ok"]
    assert report["databases"]["a"]["replicas"][0]["state"] == "streaming"
    group.stop()
    group.stop()
    assert [r.status().state for r in group.values()] == ["stopped", "stopped"]


def test_report_is_judged_by_the_limits_of_each(tmp_path: Path) -> None:
    """The same lag is fine for one and too much for another, which says why."""
    store = FaultyStore(name="slow")
    members, limits = {}, {"strict": {"max_lag": 0.01}}
    for name in ("strict", "patient"):
        path = database(tmp_path, name)
        members[name] = replicator_from(name, path, {"replicas": store.replica})
        store = FaultyStore(name="slow")
    group = Replicators(members, limits)
    group.start()
    for replicator in group.values():
        replicator.sync()
        [replica] = replicator._options.replicas
        replica.url.plan = since(1)  # type: ignore[union-attr]
        with sqlite3.connect(replicator.database) as connection:
            connection.execute("insert into t values(1)")
        connection.close()
    deadline = time.monotonic() + 60
    while (report := group.report()["databases"])["strict"]["ok"]:
        assert time.monotonic() < deadline, report
        time.sleep(0.02)
    assert "slow" in report["strict"]["reasons"][0]
    assert report["patient"]["ok"]
    for replicator in group.values():
        replicator._options.replicas[0].url.heal()  # type: ignore[union-attr]
    group.stop()


def test_one_that_fails_keeps_no_other_from_starting_or_stopping(
    tmp_path: Path,
) -> None:
    """All are tried; the error of the first that failed is raised, with the others'."""
    first, good, last = FaultyStore(), MemoryStore(), FaultyStore()
    group = group_of(tmp_path, a=first, b=good, c=last)
    group.start()
    for replicator in group.values():
        replicator.sync()
    before = len(good.files(0))
    first.plan = last.plan = since(1)
    for name in group:
        with sqlite3.connect(tmp_path / name) as connection:
            connection.execute("insert into t values(1)")
        connection.close()
    with pytest.raises(TimeoutError) as caught:
        group.stop()
    assert len(caught.value.__notes__) == 1
    assert len(good.files(0)) > before
    assert {r.status().state for r in group.values()} == {"stopped"}


def test_group_takes_new_members_and_lets_old_ones_go(tmp_path: Path) -> None:
    """What is added runs; what is removed was flushed, stopped and is forgotten."""
    store = MemoryStore()
    group = group_of(tmp_path, a=MemoryStore())
    group.start()
    added = replicator_from("b", database(tmp_path, "b"), store.replica)
    group.add("b", added)
    assert (group["b"], len(group)) == (added, 2)
    group.remove("b")
    assert (list(group), added.status().state) == (["a"], "stopped")
    assert store.files() != []
    group.stop()
