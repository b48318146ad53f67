"""What ``import sqlitereplica`` costs an application that may never replicate."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# The modules of fsspec, msgspec, sqlite3, logging and our own, with some room. s3fs
# alone brings about 500.
MOST_MODULES = 420

HEAVY = {
    "aiobotocore",
    "aiohttp",
    "botocore",
    "datasette",
    "django",
    "flask",
    "opentelemetry",
    "pandas",
    "prometheus_client",
    "pytest",
    "s3fs",
    "sqlalchemy",
    "starlette",
    "yaml",
}

PROBE = """
import json, sys
before = set(sys.modules)
import sqlitereplica
for name in sqlitereplica.__all__:
    if name in {names}:
        getattr(sqlitereplica, name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def modules_loaded_by_import(*names: str) -> set[str]:
    """Modules that a fresh interpreter loads to import the package and ``names``."""
    command = [sys.executable, "-c", PROBE.format(names=set(names))]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return set(json.loads(output))


@pytest.mark.parametrize("names", [(), ("Replicator", "restore")], ids=["bare", "used"])
def test_import_loads_no_heavy_module(names: tuple[str, ...]) -> None:
    """No store's client, no framework and no second SQLite before it is needed."""
    roots = {name.partition(".")[0] for name in modules_loaded_by_import(*names)}
    assert roots & HEAVY == set()


def test_import_loads_few_modules() -> None:
    """The number of modules stays that of a small library."""
    assert len(modules_loaded_by_import("Replicator", "restore")) < MOST_MODULES


def test_import_alone_loads_no_store_and_no_reader() -> None:
    """An application pays for what it uses, when it first uses it."""
    loaded = modules_loaded_by_import()
    late = {"fsspec", "msgspec", "asyncio", "sqlitereplica.replicate"}
    assert loaded & late == set()
    assert "sqlitereplica.reading" not in modules_loaded_by_import("restore")
