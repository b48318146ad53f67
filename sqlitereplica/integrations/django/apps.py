"""The app: checks, and replication that begins with the first request at the latest."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

__all__ = ["SQLiteReplicaConfig"]


class SQLiteReplicaConfig(AppConfig):  # type: ignore[misc]
    """What ``INSTALLED_APPS`` loads."""

    name = "sqlitereplica.integrations.django"
    label = "sqlitereplica"
    verbose_name = "Replication"

    def ready(self) -> None:
        """Register; nothing is opened or started."""
        from sqlitereplica.integrations.django.checks import check_replication
        from sqlitereplica.integrations.django.databases import (
            start_with_the_first_request,
        )

        register(check_replication, "sqlitereplica")
        start_with_the_first_request()
