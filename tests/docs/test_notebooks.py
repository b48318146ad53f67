"""The notebooks of the documentation: they run, and give what is stored in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from support import notebooks

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("docs/**/*.ipynb"))
every_notebook = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def code_cells(path: Path) -> list[Any]:
    """The cells of a notebook that are run, in order."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def shape(cell: Any) -> dict[str, Any]:
    """What has to be the same in every run.

    Text that is printed is. Of values that have more than one form it is the forms and the
    type, since times and sizes are in them; of bars, that they come to their end.
    """
    found: dict[str, Any] = {}
    for output in cell.outputs:
        if output.output_type == "stream":
            found[output.name] = found.get(output.name, "") + output.text
        else:
            text = output.data["text/plain"]
            is_plain = len(output.data) == 1
            kind = text if is_plain else text.replace("(", " ").split()[0]
            found[output.output_type] = (sorted(output.data), kind)
    # Else there are only warnings, such as of matplotlib that it looks for fonts.
    found["bar ended"] = "100%" in found.pop("stderr", "")
    return found


@every_notebook
def test_notebook_runs_and_gives_what_is_stored(path: Path, tmp_path: Path) -> None:
    """No cell fails, and outputs have the stored shape.

    To store them anew: ``python tests/support/notebooks.py NOTEBOOK NOTEBOOK`` with
    absolute paths, in an empty folder whose name is nothing of yours, since it is shown.
    """
    ours = ("PYTEST_", "AWS_", "MPL")
    variables = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    done = subprocess.run(
        [sys.executable, str(notebooks.__file__), str(path), "run.ipynb"],
        check=False,
        cwd=tmp_path,
        env=variables,
        timeout=250,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    stored, run = code_cells(path), code_cells(tmp_path / "run.ipynb")
    assert [shape(cell) for cell in run] == [shape(cell) for cell in stored]


@every_notebook
def test_notebook_was_run_from_its_first_cell_to_its_last(path: Path) -> None:
    """Its outputs belong together, none is an error, none needs trust."""
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == [
        number + 1 for number in range(len(cells))
    ]
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds <= {"display_data", "execute_result", "stream"}
    assert "<script" not in path.read_text("utf-8")


def test_cell_that_fails_is_noticed(tmp_path: Path) -> None:
    """A notebook that does not run does not pass."""
    cell = nbformat.v4.new_code_cell("1 / 0")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "bad.ipynb")
    done = subprocess.run(
        [sys.executable, str(notebooks.__file__), "bad.ipynb", "run.ipynb"],
        check=False,
        cwd=tmp_path,
        timeout=250,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode != 0 and "ZeroDivisionError" in done.stdout
