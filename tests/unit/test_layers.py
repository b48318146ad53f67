"""The layers of the package: who may import whom, read from the source with ``ast``.

Imports inside functions and under ``TYPE_CHECKING`` count like any other: a type is a
dependency too.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import sqlitereplica

PACKAGE = Path(sqlitereplica.__path__[0])
NAME = "sqlitereplica"

# A module imports only from its own layer or from one above it. Modules on one line do
# not import each other. The facade, `__init__`, imports anything; nothing imports it.
LAYERS: list[set[str]] = [
    {"pickled"},
    {"errors"},
    {"durations", "markup", "progress", "sizes"},
    {"lifetime", "policy"},
    {"events"},
    {"ltx"},
    {"sqlite"},
    {"store"},
    {"capture"},
    {"restore"},
    {"reading", "replicate"},
    {"fleet", "group"},
    {"integrations"},
    {"config", "testing"},
    {"cli", "demo"},
    {"__main__"},
]
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}

# Foreign modules that only some parts may import: each has one border where its errors
# are translated, and apsw must stay away from the source database (design, section 3):
# beside it, apsw is only watched.
FENCES: dict[str, set[str]] = {
    "apsw": {"sqlite.hazards", "restore", "reading", "testing"},
    "fsspec": {"store", "testing"},
    "fsspec.callbacks": {
        "cli",
        "progress",
        "reading",
        "replicate",
        "restore",
        "store",
        "testing",
    },
    "s3fs": {"store", "testing"},
    "tqdm": {"progress"},
    "rich": {"progress"},
    "matplotlib": {"restore"},
    "cryptography": {"store.sealing"},
    "prometheus_client": {"integrations"},
    "opentelemetry": {"integrations.opentelemetry"},
    "datasette": {"integrations.datasette"},
    "django": {"integrations.django"},
    "flask": {"integrations.flask"},
    "sqlalchemy": {"integrations.sqlalchemy"},
    "starlette": {"integrations"},
}

# ltx/ turns bytes into values: it opens nothing, starts nothing, asks no clock.
IMPURE = {
    "asyncio",
    "concurrent",
    "io",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "shutil",
    "socket",
    "sqlite3",
    "subprocess",
    "tempfile",
    "threading",
    "time",
}
PURE_IO_NAMES = {"io.BytesIO", "io.BufferedIOBase", "io.RawIOBase", "io.IOBase"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    """The import name of a source file of the package."""
    parts = [NAME, *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The layer entry that a module of the package belongs to; "" for the facade."""
    return module.removeprefix(NAME).removeprefix(".").partition(".")[0]


NAMES = {dotted(path) for path in MODULES}
INNER = sorted(name for name in NAMES if part_of(name))


def imported_by(tree: ast.AST, *, top_level: bool = False) -> Iterator[str]:
    """Absolute names that a tree imports: ``from a import b`` gives ``a.b``."""
    for node in ast.iter_child_nodes(tree) if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_module(name: str) -> str | None:
    """The module of this package that an imported name comes from."""
    if name in NAMES:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in NAMES else None


def parse(module: str) -> ast.Module:
    """The syntax tree of a module of the package."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_bytes(), str(file))


def is_within(name: str, module: str) -> bool:
    """Whether an imported name is a module or something in it."""
    return name == module or name.startswith(module + ".")


def test_every_module_has_a_layer() -> None:
    """Whatever is in the package has its place in the list of layers."""
    assert {part_of(name) for name in INNER} <= set(RANK)


@pytest.mark.parametrize("module", INNER)
def test_module_imports_only_from_above(module: str) -> None:
    """A module imports from its own part or from one further up, never the facade."""
    mine = part_of(module)
    for name in imported_by(parse(module)):
        source = own_module(name)
        if source is None or part_of(source) == mine:
            continue
        assert part_of(source), f"{module} imports {name} from the facade"
        assert RANK[part_of(source)] < RANK[mine], f"{module} imports {name}"


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    """The imports at the top of the modules make a graph without cycles."""
    graph = {
        module: {
            source
            for name in imported_by(parse(module), top_level=True)
            if (source := own_module(name)) is not None
        }
        for module in NAMES
    }
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", INNER)
def test_foreign_module_stays_behind_its_fence(module: str) -> None:
    """apsw, fsspec and the like are imported only in the parts that wrap them."""
    for name in imported_by(parse(module)):
        fences = [fence for fence in FENCES if is_within(name, fence)]
        if fences:
            allowed = FENCES[max(fences, key=len)]
            inside = any(is_within(module, f"{NAME}.{part}") for part in allowed)
            assert inside, f"{module} imports {name}"


@pytest.mark.parametrize("module", [m for m in INNER if part_of(m) == "ltx"])
def test_ltx_is_pure(module: str) -> None:
    """ltx/ imports nothing that opens, waits, runs beside it or tells the time."""
    tree = parse(module)
    for name in imported_by(tree):
        pure = name.partition(".")[0] not in IMPURE or name in PURE_IO_NAMES
        assert pure, f"{module} imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "open", f"{module}:{node.lineno} opens a file"
