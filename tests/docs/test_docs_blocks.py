"""The documentation does what it says: every code block of every page runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import docblocks

import sqlitereplica

if TYPE_CHECKING:
    from support.servers import S3Server

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]

# Markers of blocks that something else runs, with what does.
RUN_ELSEWHERE = {"main-command": "a fresh machine", "test-command": ".ci/run"}

SAMPLE = """
<!-- not run: it would take a day -->
```python
raise SystemExit
```

```python
from pathlib import Path

answer = 42
```

Some text.

```bash
echo $((40 + 2)) > answer
```

1. In a list:

   ```python
   assert answer == int(Path("answer").read_text())
   ```

```console
$ cat answer
42
$ echo a long line of words
a ... words
```

```python
>>> answer
42
```

```toml
answer = 42
```
"""


def environment() -> dict[str, str]:
    """The variables a page runs with: our Python first, no site's own settings."""
    scripts = str(Path(sys.executable).parent)
    path = os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)])
    ours = ("PYTEST_", "AWS_")  # Litestream fails where AWS_CA_BUNDLE is set
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return {**kept, "PATH": path, "PYTHONWARNINGS": "error"}


def provide(needs: list[str], request: pytest.FixtureRequest) -> Mapping[str, str]:
    """The variables for what a page needs; skips the page where that cannot be had."""
    variables: dict[str, str] = {}
    for need in needs:
        if need == "s3":
            server: S3Server = request.getfixturevalue("s3_server")
            server.make_bucket("my-bucket")
            variables = {**server.environment, "AWS_ENDPOINT_URL": server.endpoint}
        else:
            pytest.importorskip(need)
    return variables


def run_page(
    page: Path, folder: Path, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a page in an interpreter of its own, in an empty folder."""
    command = [sys.executable, str(docblocks.__file__), str(page)]
    return subprocess.run(
        command,
        check=False,
        cwd=folder,
        env={**environment(), **(variables or {})},
        timeout=100,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_the_page_runs(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The blocks of a page run one after the other, as a reader would paste them."""
    variables = provide(docblocks.needs_of(page.read_text("utf-8")), request)
    result = run_page(page, tmp_path, variables)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_block_that_is_not_run_says_why(page: Path) -> None:
    """Code is left out only with a reason or because another test runs it."""
    for block in docblocks.parse_page(page.read_text("utf-8")):
        if block.language in docblocks.RUN and not block.is_run:
            reason = block.marker.removeprefix("not run:").strip()
            excused = block.marker.startswith("not run:") and len(reason) > 10
            assert excused or block.marker in RUN_ELSEWHERE, f"line {block.line}"


def test_reference_describes_every_public_name() -> None:
    """Each name that the package exports is in the reference."""
    pages = [ROOT / "docs" / "reference" / name for name in ("api.md", "errors.md")]
    text = "".join(page.read_text("utf-8") for page in pages)
    missing = [
        n for n in sqlitereplica.__all__ if not re.search(rf"`[^`\n]*{n}\b", text)
    ]
    assert missing == []


def test_demo_of_the_readme_succeeds(tmp_path: Path) -> None:
    """What the README's main command runs after the installation succeeds."""
    command = docblocks.marked_block((ROOT / "README.md").read_text(), "main-command")
    arguments = command.rpartition("bin/python ")[2].split()
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True)


def test_blocks_share_a_folder_and_a_namespace(tmp_path: Path) -> None:
    """Blocks of all three languages build on those before them."""
    page = tmp_path / "page.md"
    page.write_text(SAMPLE)
    result = run_page(page, tmp_path)
    assert result.stdout == f"5 blocks of {page} ran\n"


@pytest.mark.parametrize(
    "block",
    [
        "```python\n1 / 0\n```",
        "```python\n>>> 1\n2\n```",
        "```bash\nfalse\ntrue\n```",
        "```console\n$ echo one\ntwo\n```",
    ],
    ids=["python", "doctest", "bash", "console"],
)
def test_block_that_fails_is_reported_with_its_line(block: str, tmp_path: Path) -> None:
    """A failing block fails the page and is named by page and line."""
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{block}\n")
    result = run_page(page, tmp_path)
    assert result.returncode == 1
    assert "page.md:4: " in result.stdout
