"""The Replicator of this process."""

from __future__ import annotations

from django.conf import settings

from sqlitereplica import Replicator, restore

__all__ = ["replicator", "start"]

replicator = Replicator(settings.DATABASES["default"]["NAME"], settings.REPLICA)


def start() -> None:
    """Fetch the database if there is none, and replicate it."""
    path = settings.DATABASES["default"]["NAME"]
    restore(settings.REPLICA, path, if_exists="skip", missing="skip")
    replicator.start()
