"""Whatever becomes of a replica's files, a follower shows a state of it, and the newest
that a restore could give."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from support.recording import Recording
from support.replicas import arrange, memory_store, record

from sqlitereplica.errors import NotRestorableError, PosMismatchError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore.following import Following
from sqlitereplica.restore.plan import extend, plan_restore
from sqlitereplica.store import LTXStore

pytestmark = pytest.mark.property

NEWEST = 9
FILES = st.tuples(
    st.sampled_from([0, 0, 0, 1, 2, 9]), st.integers(1, NEWEST), st.integers(1, NEWEST)
)


@st.composite
def rounds(draw: st.DrawFn) -> list[tuple[list[tuple[int, int, int]], set[int], bool]]:
    """For each round files to publish, which of all to delete, and whether to restart."""
    result = []
    for _ in range(draw(st.integers(1, 4))):
        files = []
        for level, one, other in draw(st.lists(FILES, min_size=1, max_size=6)):
            first, last = min(one, other), max(one, other)
            if level == 0:
                first = last
            if level == 9:
                first = 1
            files.append((level, first, last))
        gone = draw(st.sets(st.integers(0, 11), max_size=4))
        result.append((files, gone, draw(st.booleans())))
    return result


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Recording]:
    """Nine transactions, with our checksums and without."""
    folder = tmp_path_factory.mktemp("recorded")
    return {
        signed: record(folder, f"signed-{signed}", signed=signed)
        for signed in (True, False)
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the files of each example."""
    return tmp_path_factory.mktemp("follow")


class Run:
    """A follower of one replica, judged after every look."""

    def __init__(self, folder: Path, recording: Recording, store: LTXStore) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.path = folder / "f.db"
        self._recording, self._store = recording, store
        self.txid = 0
        self.begin()

    def begin(self) -> None:
        """Begin, as a new process would."""
        self.following = Following(
            str(self.path),
            lambda: self._store,
            sqlite3.connect,
            copy="sqlite3",
            notes=self.path.with_name("held"),
            batch=2048,
            look_around=1,
        )

    def follow(self) -> None:
        """Look until nothing is new, or something is missing."""
        files, before = self._store.list_all(), self.txid
        error = self._look()
        self.check()
        if error is None:
            assert self.txid == max(file.max_txid for file in files)
            event("in step")
        else:
            assert not self._leads_on(files, before), error
            event(f"{type(error).__name__} {error.kind}")

    def _look(self) -> NotRestorableError | PosMismatchError | None:
        """Step to the end; what is missing, if something is."""
        try:
            is_changing = True
            while is_changing:
                before = self.following.held
                more = self.following.step()
                self.check()
                is_changing = more or self.following.held != before
        except (NotRestorableError, PosMismatchError) as error:
            return error
        return None

    def _leads_on(self, files: list[FileInfo], before: int) -> bool:
        """Whether a restore, or increments, give the newest state."""
        newest = max((file.max_txid for file in files), default=0)
        if newest < before or not files:
            return False
        steps = extend(files, before) if before else []
        if before == newest or (steps and steps[-1].max_txid == newest):
            return True
        try:
            return plan_restore(files)[-1].max_txid == newest
        except NotRestorableError:
            return False

    def check(self) -> None:
        """Readers see exactly the state of the transaction that is noted."""
        held = self.following.held
        self.txid = self.txid if held is None else held.txid
        if not self.txid:
            assert not self.path.exists()
            return
        with closing(sqlite3.connect(self.path)) as db:
            assert db.serialize()[100:] == self._recording.images[self.txid][100:]


@settings(max_examples=100)
@given(signed=st.booleans(), rounds=rounds())
def test_follower_shows_the_newest_state_that_can_be_had(
    signed: bool,
    rounds: list[tuple[list[tuple[int, int, int]], set[int], bool]],
    recordings: dict[bool, Recording],
    place: Path,
) -> None:
    """Files come and go at all levels; between looks the follower may be restarted."""
    store = memory_store()
    run = Run(place / "copy", recordings[signed], store)
    for files, gone, restart in rounds:
        arrange(recordings[signed], store, files)
        there = store.list_all()
        store.delete([file for at, file in enumerate(there) if at in gone])
        run.follow()
        if restart:
            run.following.close()
            run.begin()
    run.following.close()
