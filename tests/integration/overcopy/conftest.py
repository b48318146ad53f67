"""A replica with a history, and a database to restore over."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.recording import Recording
from support.troubled import TroubledStore

from sqlitereplica.store import LTXStore


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    """A database of about 2 MB, a row to a page, and six transactions.

    There is a snapshot of the third, with page checksums. The last but one changes two
    pages alike, which the database checksum does not show.
    """
    folder = tmp_path_factory.mktemp("made")
    made = Recording(folder / "source.db", LTXStore.open(folder / "replica"))
    made.commit(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, flag INT, b BLOB)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
        " INSERT INTO t(flag, b) SELECT 2, randomblob(3000) FROM n",
    )
    made.commit("UPDATE t SET b = randomblob(3000) WHERE id % 100 = 7")
    made.commit("UPDATE t SET b = randomblob(3000) WHERE id % 100 = 8")
    made.publish(9, 1, 3)
    made.publish_sums(3)
    made.commit("UPDATE t SET b = randomblob(3000) WHERE id % 100 = 9")
    made.commit("UPDATE t SET flag = 3 WHERE id IN (150, 250)")
    made.commit("INSERT INTO t(flag, b) VALUES (2, randomblob(9000))")
    yield made
    made.close()


@pytest.fixture
def store(recording: Recording, tmp_path: Path) -> TroubledStore:
    """A copy of the replica."""
    folder = Path(recording.store.name.removeprefix("file://"))
    shutil.copytree(folder, tmp_path / "replica")
    return TroubledStore.at(tmp_path / "replica")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The database to restore, in a folder of its own."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "app.db"


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sqlitereplica")
