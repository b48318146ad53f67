"""Run a notebook in the present folder: ``python notebooks.py SOURCE TARGET``.

What Jupyter itself writes goes to a temporary folder, and so do its messages: through sockets
there, since ports that it chooses may be taken before it uses them.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

__all__ = ["execute", "main"]

TIMEOUT = 60


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells with ``folder`` as the current one; outputs go into the notebook.

    Raises:
        CellExecutionError: A cell failed.
    """
    # Not in the folder: the path of a socket has room for about 100 letters.
    with tempfile.TemporaryDirectory(prefix="nb-") as own:
        names = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")
        os.environ |= dict.fromkeys(names, own) | {"JUPYTER_RUNTIME_DIR": own}
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            startup_timeout=TIMEOUT,
            kernel_name="python3",
            kernel_manager_class=AsyncKernelManager,
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
        )
        client.create_kernel_manager()
        client.km.transport = "ipc"
        client.execute()


def main(source: str, target: str) -> None:
    """Read a notebook, run it in the present folder, and write it."""
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    execute(notebook, Path.cwd())
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
