"""The public names: each package lists its own, sorted, and has what it lists."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
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
