"""The files of the repository keep the promises of CONTRIBUTING.md."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.docblocks import marked_block

ROOT = Path(__file__).parents[2]
LONGEST_FILE = 500
HIDDEN_BUT_OURS = {".ci", ".gitignore"}
NOT_OURS = {"__pycache__", "build", "dist"}

# Spelt so that this file does not match: paths of one machine, and package registries,
# which are the business of whoever installs.
FOREIGN = re.compile(
    r"/(?:w[o]rk|r[o]ot|h[o]me|U[s]ers|o[p]t)/\w"
    r"|/tmp/(?:v|b[a]sh_jobs)\b"
    r"|\.p[y]env|p[y]pi\.org|p[y]thonhosted|index-u[r]l|find-l[i]nks|npmj[s]\.org"
)


def walk(folder: Path) -> Iterator[Path]:
    """The files of the repository; caches, environments and builds are not."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name.startswith(".") and entry.name not in HIDDEN_BUT_OURS:
            continue
        if not entry.is_dir():
            yield path
        elif entry.name not in NOT_OURS and not (path / "pyvenv.cfg").exists():
            yield from walk(path)


FILES = list(walk(ROOT))
PYTHON = [path for path in FILES if path.suffix == ".py"]
TESTS = [path for path in PYTHON if path.name.startswith("test_")]
PAGES = [path for path in FILES if path.suffix == ".md"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def text_of(path: Path) -> str:
    """The text of a file; that of a binary file is empty."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return ""


def requirements() -> list[Requirement]:
    """Everything pyproject.toml asks for, but the project itself."""
    project = PROJECT["project"]
    listed = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        listed += extra
    for group in PROJECT["dependency-groups"].values():
        listed += [entry for entry in group if isinstance(entry, str)]
    parsed = [Requirement(entry) for entry in listed]
    return [entry for entry in parsed if entry.name != project["name"]]


def pins() -> dict[str, str]:
    """The versions in constraints.txt, by canonical name."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_python_files_are_short() -> None:
    """No file has grown past what one sitting can read."""
    long = {
        str(path.relative_to(ROOT)): lines
        for path in PYTHON
        if (lines := text_of(path).count("\n")) >= LONGEST_FILE
    }
    assert long == {}


def test_no_file_names_a_machine_or_a_registry() -> None:
    """Nothing in the repository depends on whose machine it was written on."""
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in FILES
        for match in FOREIGN.finditer(text_of(path))
    ]
    assert found == []


def test_test_file_names_are_unique() -> None:
    """Test folders are no packages, so two files must not share a name."""
    names = Counter(path.name for path in TESTS)
    assert [name for name, count in names.items() if count > 1] == []


def test_every_test_states_what_it_proves() -> None:
    """Each test function has a docstring."""
    silent = [
        f"{path.relative_to(ROOT)}::{node.name}"
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


def test_package_is_marked_as_typed() -> None:
    """Type checkers look for py.typed in the package."""
    assert (ROOT / "sqlitereplica" / "py.typed").is_file()


def test_every_dependency_is_pinned_within_its_range() -> None:
    """constraints.txt holds a version that pyproject.toml allows, for each dependency."""
    versions = pins()
    wrong = [
        str(entry)
        for entry in requirements()
        if versions.get(canonicalize_name(entry.name), "") not in entry.specifier
    ]
    assert wrong == []


def test_constraints_hold_exact_versions_only() -> None:
    """Every line of constraints.txt is a comment or name==version."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    exact = re.compile(r"#.*|[\w.-]+==[\w.]+")
    assert [line for line in lines if not exact.fullmatch(line)] == []


@pytest.mark.parametrize(
    ("marker", "ending"),
    [
        ("main-command", "-m sqlitereplica demo"),
        ("test-command", "-m pytest -q -n 2"),
    ],
)
def test_readme_gives_a_complete_command(marker: str, ending: str) -> None:
    """Each command is one line that begins with making an environment."""
    command = marked_block(text_of(ROOT / "README.md"), marker)
    assert command.startswith("python3 -m venv .venv")
    assert command.endswith(ending) and "\n" not in command


def test_ci_runs_the_command_of_the_readme() -> None:
    """.ci/run can be executed and takes the test command from the README."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "<!-- test-command -->" in text_of(script)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A relative link in a page points to a file or folder that exists."""
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(page))
    local = [target for target in targets if ":" not in target]
    assert [t for t in local if not (page.parent / t).exists()] == []
