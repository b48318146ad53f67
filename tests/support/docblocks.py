"""Run the code blocks of a Markdown page, in order, in the current folder.

``python``   all blocks of a page share one namespace; a block of ``>>>`` lines is a doctest
``bash``     one script, run with ``set -euo pipefail``
``console``  each ``$`` line is a command; the lines below it are what it prints, where
             ``...`` stands for anything

A comment on the line before a block excludes it from the run: ``<!-- not run: why -->``,
or a name such as ``<!-- test-command -->`` for what is run elsewhere. Blocks in other
languages are prose.

``<!-- needs: s3 django -->`` at the top of a page names what its blocks need beyond the
package: a module that is imported, or ``s3`` for a server, which the test provides.

``python docblocks.py page.md`` runs a page and reports the block that failed.
"""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Block",
    "DocumentationError",
    "marked_block",
    "needs_of",
    "parse_page",
    "run_page",
]

BLOCK = re.compile(
    r"(?:^[ ]*<!--\s*(?P<marker>[^\n]+?)\s*-->\n)?"
    r"^(?P<indent>[ ]*)```(?P<language>\w+)[^\n]*\n(?P<body>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
NEEDS = re.compile(r"\A<!-- needs: (.+) -->$", re.MULTILINE)
RUN = {"python", "bash", "console"}


class DocumentationError(Exception):
    """A code block does not do what the page says."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block; ``line`` is the number of its first line of code."""

    language: str
    text: str
    line: int
    marker: str = ""

    @property
    def is_run(self) -> bool:
        """Whether the block is code that the page wants run."""
        return self.language in RUN and not self.marker


def parse_page(text: str) -> list[Block]:
    """The fenced code blocks of a page, in order."""
    blocks = []
    for match in BLOCK.finditer(text):
        indent = len(match["indent"])
        lines = [line[indent:] for line in match["body"].splitlines(keepends=True)]
        line = text.count("\n", 0, match.start("body")) + 1
        marker = match["marker"] or ""
        blocks.append(Block(match["language"], "".join(lines), line, marker))
    return blocks


def needs_of(text: str) -> list[str]:
    """What a page says that it needs."""
    match = NEEDS.search(text)
    return match[1].split() if match else []


def marked_block(text: str, marker: str) -> str:
    """The text of the one block that follows ``<!-- marker -->``."""
    (block,) = (block for block in parse_page(text) if block.marker == marker)
    return block.text.strip()


def run_shell(script: str) -> str:
    """Run a script with bash; return what it printed."""
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        command,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise DocumentationError(f"exit status {done.returncode}:\n{done.stdout}")
    return done.stdout


def run_console(text: str) -> None:
    """Run the ``$`` lines of a block; compare what they print where that is shown."""
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, wanted = part.partition("\n")
        got = run_shell(command)
        if wanted.strip() and not checker.check_output(wanted, got, flags):
            raise DocumentationError(f"$ {command}\nwanted:\n{wanted}\ngot:\n{got}")


def run_python(block: Block, page: Path, namespace: dict[str, object]) -> None:
    """Execute a block in the page's namespace; tracebacks show the page's own lines."""
    if block.text.lstrip().startswith(">>>"):
        parser = doctest.DocTestParser()
        test = parser.get_doctest(
            block.text, namespace, page.name, str(page), block.line - 1
        )
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        if runner.run(test, clear_globs=False).failed:
            raise DocumentationError("the doctest above failed")
        namespace.update(test.globs)
        return
    source = "\n" * (block.line - 1) + block.text
    exec(compile(source, str(page), "exec"), namespace)


def run_page(page: Path) -> int:
    """Run the blocks of a page; return how many there were."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    blocks = [block for block in parse_page(page.read_text("utf-8")) if block.is_run]
    for block in blocks:
        try:
            if block.language == "python":
                run_python(block, page, namespace)
            elif block.language == "console":
                run_console(block.text)
            else:
                run_shell(block.text)
        except Exception as error:
            where = f"{page.name}:{block.line}: {block.language} block failed"
            raise DocumentationError(where) from error
    return len(blocks)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{run_page(Path(name))} blocks of {name} ran")
