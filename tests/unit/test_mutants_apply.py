"""The list of mutants keeps up with the code: ``nox -s mutants`` takes too long for that."""

from __future__ import annotations

from pathlib import Path

from support.mutantlist import MUTANTS

import sqlitereplica

ROOT = Path(__file__).parents[2]
PACKAGE = Path(sqlitereplica.__path__[0])


def test_every_mutant_can_be_made_and_has_its_test() -> None:
    """The text to be replaced is there, and so is the test that should notice."""
    stale = []
    for mutant in MUTANTS:
        path, _, name = mutant.test.partition("::")
        test = ROOT / path
        text = test.read_text() if test.is_file() else ""
        function = name.partition("[")[0]
        if mutant.old not in (PACKAGE / mutant.file).read_text():
            stale.append(mutant.name)
        elif not test.exists() or (function and f"def {function}" not in text):
            stale.append(mutant.test)
    assert stale == []
