"""The command line: thin, on the same functions that applications use."""

from sqlitereplica.cli.main import main

__all__ = ["main"]
