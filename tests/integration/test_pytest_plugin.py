"""The pytest plugin, in test runs of their own."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

DIARY = Path(__file__).parents[1] / "apps" / "diary"

LOADED = """
import sys

def pytest_unconfigure():
    heavy = {"apsw", "fsspec", "msgspec", "sqlitereplica"}
    print("loaded:", sorted(heavy & set(sys.modules)))
"""


def test_pytest_finds_the_plugin_by_itself() -> None:
    """The distribution has the entry point, and it leads to the module."""
    [entry] = importlib.metadata.entry_points(group="pytest11", name="sqlitereplica")
    assert entry.value == "_sqlitereplica_pytest"
    assert callable(entry.load().replicated_db)


def test_run_that_uses_no_fixture_does_not_import_the_package(
    pytester: pytest.Pytester,
) -> None:
    """Who has the plugin and does not use it pays for one small module."""
    pytester.makeconftest(LOADED)
    pytester.makepyfile("def test_nothing(tmp_path): pass")
    result = pytester.runpytest_subprocess("-s")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["loaded: []"])


def test_fixtures_are_listed_with_what_they_are(pytester: pytest.Pytester) -> None:
    """``pytest --fixtures`` tells a user what there is."""
    result = pytester.runpytest_subprocess("--fixtures")
    for name in ("replica_store", "faulty_store", "replicated_db*"):
        result.stdout.fnmatch_lines([f"{name}* -- *_sqlitereplica_pytest.py:*"])


def test_fixtures_can_be_overridden(pytester: pytest.Pytester) -> None:
    """A conftest chooses the store and the options of ``replicated_db``."""
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def replica_store(faulty_store):
            return faulty_store

        @pytest.fixture
        def replicated_db_options():
            return {"sync_interval": 0.01, "retention": "30d"}
        """
    )
    pytester.makepyfile(
        """
        import pytest
        from sqlitereplica import StoreError, SyncTimeoutError
        from sqlitereplica.testing import since

        def test_store_that_is_away(replicated_db, faulty_store):
            replicated_db.execute("create table t(x)")
            replicated_db.sync()
            faulty_store.plan = since(1)
            replicated_db.execute("insert into t values(1)")
            with pytest.raises((SyncTimeoutError, StoreError)):
                replicated_db.sync(timeout=0.1)
        """
    )
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=1)


def test_each_test_has_a_store_of_its_own(pytester: pytest.Pytester) -> None:
    """What one test replicates is not there in the next."""
    pytester.makepyfile(
        """
        import sqlite3

        import pytest

        @pytest.mark.parametrize("turn", [1, 2])
        def test_empty_at_first(replicated_db, replica_store, turn):
            assert tables(replicated_db) == []
            with replicated_db.connect() as connection:
                connection.execute("create table t(x)")
            assert tables(replicated_db) == [("t",)]
            assert replica_store.files() != []

        def tables(replicated_db):
            replicated_db.sync()
            copy = sqlite3.connect(replicated_db.restored())
            found = copy.execute("select name from sqlite_master").fetchall()
            copy.close()
            return found
        """
    )
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=2)


def test_package_that_uses_the_plugin_passes_its_own_tests(tmp_path: Path) -> None:
    """The diary, a package with a test suite of its own, is tested with the fixtures."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--basetemp={tmp_path / 'base'}", DIARY],
        check=False,
        cwd=DIARY,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
