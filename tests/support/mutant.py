"""A deliberate bug."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Mutant"]


@dataclass(frozen=True)
class Mutant:
    """One deliberate bug and the test that must fail on it."""

    name: str
    file: str
    old: str
    new: str
    test: str
