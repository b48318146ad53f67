"""Exit codes. Documented in ``docs/reference/cli.md``."""

from __future__ import annotations

__all__ = ["FAILED", "INTERRUPTED", "NOT_RESTORABLE", "PROBLEMS", "USAGE"]

FAILED = 1
USAGE = 2
NOT_RESTORABLE = 3
PROBLEMS = 4
INTERRUPTED = 130
