"""The public names: each package lists its own, sorted, and has what it lists."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sqlitereplica

ROOT = Path(sqlitereplica.__path__[0])
PACKAGES = sorted(
    ".".join(["sqlitereplica", *init.parent.relative_to(ROOT).parts])
    for init in ROOT.rglob("__init__.py")
)


def reading_order(name: str) -> tuple[bool, bool, list[tuple[int, str]]]:
    """Constants, then classes, then the rest, numbers by value: as ruff sorts them."""
    is_constant = name.isupper()
    is_class = name[0].isupper()
    chunks = re.findall(r"(\d+)|(\D+)", name)
    return (
        not is_constant,
        not is_class,
        [(int(number or 0), text) for number, text in chunks],
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_exports_are_sorted_and_named_once(package: str) -> None:
    """``__all__`` is there, in reading order and without repetition."""
    names = importlib.import_module(package).__all__
    assert names == sorted(set(names), key=reading_order)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_exists(package: str) -> None:
    """Whatever ``__all__`` lists can be had from the package, lazily or not."""
    module = importlib.import_module(package)
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert missing == []


def test_version_is_that_of_the_installed_distribution() -> None:
    """``__version__`` is read from the metadata, so that it is written down once."""
    installed = importlib.metadata.version("sqlitereplica")
    assert installed == sqlitereplica.__version__


def test_unknown_attribute_raises_attribute_error() -> None:
    """The lazy ``__getattr__`` does not answer for names that do not exist."""
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = sqlitereplica.no_such_name


def test_names_that_are_loaded_late_are_typed_and_come_from_their_home() -> None:
    """What a type checker sees under ``TYPE_CHECKING`` is what is loaded when asked for."""
    tree = ast.parse(Path(sqlitereplica.__file__).read_bytes())
    typed = {
        name.name: f"{statement.module}"
        for block in tree.body
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for name in statement.names
    }
    homes = {k: f"sqlitereplica.{v}" for k, v in sqlitereplica._HOMES.items()}
    assert typed == homes
    for name, home in homes.items():
        found = getattr(sqlitereplica, name)
        assert found is getattr(importlib.import_module(home), name)


def test_dir_of_the_package_lists_names_not_loaded_yet() -> None:
    """Completion in a notebook shows all that there is."""
    code = "import sqlitereplica; print(set(sqlitereplica.__all__) - set(dir(sqlitereplica)))"
    assert run_fresh(code) == "set()"


@pytest.mark.parametrize(
    "first", ["restore", "restore.restore", "progress", "cli.main"]
)
def test_functions_are_not_hidden_by_submodules_of_their_name(first: str) -> None:
    """``restore`` and ``progress`` are functions, whatever was imported before."""
    code = (
        f"import sqlitereplica.{first}\n"
        "from sqlitereplica import restore, progress\n"
        "import sqlitereplica\n"
        "assert restore is sqlitereplica.restore\n"
        "print(type(restore).__name__, type(progress).__name__)"
    )
    assert run_fresh(code) == "function function"


def test_import_alone_watches_for_other_copies_of_sqlite() -> None:
    """A connection of apsw that is opened before the first use of a name is known."""
    code = (
        "import apsw, sqlitereplica\n"
        "print([hook.__module__ for hook in apsw.connection_hooks])"
    )
    assert run_fresh(code) == "['sqlitereplica.sqlite.hazards']"


def run_fresh(code: str) -> str:
    """What an interpreter of its own prints."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()
