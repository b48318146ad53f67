"""One module for a command or a few that belong together.

Each has ``add(commands)``, which declares its parsers and the functions they run.
"""

from __future__ import annotations

__all__: list[str] = []
