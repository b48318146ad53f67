"""The test of the tests: deliberate bugs, each of which a named test must notice.

    python tests/mutants.py [name ...]

Each mutant is one replacement in a copy of the package; the test that should kill it is run
against the copy. Drawn from the bugs that Litestream and LiteFS really had (reliability.md
sections 2 and 6). Exit code 0 when every mutant dies and the unchanged copy lives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from support.mutantlist import MUTANTS

ROOT = Path(__file__).resolve().parent.parent


def main(names: list[str]) -> int:
    """Run the chosen mutants, or all; returns the exit code."""
    chosen = [m for m in MUTANTS if not names or any(n in m.name for n in names)]
    survivors = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder)
        for part in ("tests", "pyproject.toml"):
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / part)
        for test in sorted({m.test for m in chosen}):
            _refresh(copy)
            if not _passes(copy, test):
                print(f"BROKEN    {test} fails without any mutant")
                survivors.append(test)
        for mutant in chosen:
            _refresh(copy)
            path = copy / "sqlitereplica" / mutant.file
            text = path.read_text()
            if text.count(mutant.old) < 1:
                print(f"STALE     {mutant.name}: its text is not in {mutant.file}")
                survivors.append(mutant.name)
                continue
            path.write_text(text.replace(mutant.old, mutant.new))
            alive = _passes(copy, mutant.test)
            print(f"{'SURVIVED' if alive else 'killed'}    {mutant.name}", flush=True)
            if alive:
                survivors.append(mutant.name)
    print(f"{len(chosen)} mutants, {len(survivors)} problems")
    return 1 if survivors else 0


def _refresh(copy: Path) -> None:
    """Put the package as it is back into the copy."""
    package = copy / "sqlitereplica"
    shutil.rmtree(package, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "sqlitereplica", package, ignore=ignored)


def _passes(copy: Path, test: str) -> bool:
    """True when the test passes in the copy; a test that hangs has noticed."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "--timeout", "60"]
    command = [sys.executable, "-m", "pytest", *options, test]
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            # For the processes that tests start, too.
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            timeout=240,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1):
        raise SystemExit(f"{test} could not be run:\n{done.stdout.decode()[-2000:]}")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
