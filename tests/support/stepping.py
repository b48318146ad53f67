"""A whole Replicator without its threads, for the library's own tests."""

from __future__ import annotations

from sqlitereplica.testing import SteppingClock as FakeClock
from sqlitereplica.testing.machinery import Stepped

__all__ = ["FakeClock", "Stepped"]
