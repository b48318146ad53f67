"""Deliberate bugs, each with the test that must notice it; ``tests/mutants.py`` tries them."""

from __future__ import annotations

from support.mutants_apps import APPS_MUTANTS
from support.mutants_fleet import FLEET_MUTANTS
from support.mutants_follow import FOLLOW_MUTANTS
from support.mutants_group import GROUP_MUTANTS
from support.mutants_lease import LEASE_MUTANTS
from support.mutants_reading import READING_MUTANTS
from support.mutants_replica import REPLICA_MUTANTS
from support.mutants_source import SOURCE_MUTANTS

__all__ = ["MUTANTS"]

MUTANTS = (
    *SOURCE_MUTANTS,
    *REPLICA_MUTANTS,
    *LEASE_MUTANTS,
    *FLEET_MUTANTS,
    *FOLLOW_MUTANTS,
    *READING_MUTANTS,
    *APPS_MUTANTS,
    *GROUP_MUTANTS,
)
