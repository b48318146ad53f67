"""Every check of the project by name. ``nox -l`` lists them; plain ``nox`` runs three."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "typing", "tests"]


def install(
    session: nox.Session, *groups: str, project: str | None = "-e.[all]"
) -> None:
    """Install the project and the dependency groups named, at the pinned versions."""
    packages = nox.project.dependency_groups(PROJECT, *groups) if groups else ()
    targets = [*packages, *([project] if project else [])]
    session.install("-c", str(ROOT / "constraints.txt"), *targets)


def pytest(session: nox.Session, *arguments: str) -> None:
    """Run pytest with ``arguments``, then with those given after ``--``."""
    install(session, "test")
    session.run("python", "-m", "pytest", *arguments, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, likely bugs and formatting."""
    install(session, "lint", project=None)
    session.run("ruff", "check", ".", *session.posargs)
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types of the package strictly."""
    install(session, "lint")
    session.run(
        "mypy",
        "--strict",
        "sqlitereplica",
        "_sqlitereplica_pytest.py",
        "benchmarks",
        *session.posargs,
    )


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests but the torture, on each Python that is installed."""
    pytest(session, "-n", "2")


@nox.session(name="property")
def property_(session: nox.Session) -> None:
    """The Hypothesis tests, with twenty times the examples."""
    session.env["HYPOTHESIS_PROFILE"] = "thorough"
    pytest(session, "-m", "property", "--timeout=3600")


@nox.session
def crash(session: nox.Session) -> None:
    """The tests that kill processes and fault disks."""
    pytest(session, "-m", "crash")


@nox.session
def interop(session: nox.Session) -> None:
    """The tests against the real Litestream."""
    pytest(session, "-m", "interop")


@nox.session
def torture(session: nox.Session) -> None:
    """Minutes of hostile load."""
    # No dumps of tracebacks in between: faulthandler reads the frames of running threads
    # without the GIL, and in a process with many that ended in a segmentation fault.
    no_dumps = ("-o", "faulthandler_timeout=0")
    pytest(session, "-m", "torture", "--timeout=3600", *no_dumps)


@nox.session
def mutants(session: nox.Session) -> None:
    """Break the code on purpose: some test has to notice."""
    install(session, "test")
    session.run("python", "tests/mutants.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure."""
    install(session, "test")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Run every code block of the documentation."""
    pytest(session, "tests/docs")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel and run the unit tests on it, far from the source tree."""
    elsewhere = Path(session.create_tmp()).resolve()
    shutil.rmtree(elsewhere / "tests", ignore_errors=True)
    shutil.copytree(ROOT / "tests", elsewhere / "tests")
    shutil.copy(ROOT / "pyproject.toml", elsewhere)
    # Not editable: this builds the wheel and installs it.
    install(session, "test", project=f"sqlitereplica[all] @ {ROOT.as_uri()}")
    session.chdir(elsewhere)
    # test_repository.py is about the files of the repository, which a wheel lacks.
    unit = ["tests/unit", "--ignore=tests/unit/test_repository.py"]
    session.run("python", "-m", "pytest", *unit, *session.posargs)
