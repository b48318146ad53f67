"""What stands between a replica and those who write to it: is it our turn?

Everything that puts or deletes asks its ``Gate`` first. Without a lease it is open.
"""

from __future__ import annotations

from typing import Protocol

from sqlitereplica.errors import AnotherWriterError
from sqlitereplica.replicate.fencing import Tenure

__all__ = ["OPEN", "Gate"]


class Gate(Protocol):
    """The gate of one replica. Thread-safe; makes no request."""

    @property
    def tenure(self) -> Tenure | None:
        """The present tenure, None without a lease."""

    def is_open(self) -> bool:
        """Whether ``check`` would not raise."""

    def check(self) -> None:
        """Return if this host may write to the replica now.

        Raises:
            LeaseLostError: Another host does.
            StoreError: ``kind`` is ``"lease-unconfirmed"``: it is not known whether
                another host does; that may change.
        """

    def explain(self, error: AnotherWriterError) -> AnotherWriterError:
        """What another writer means here."""

    def entered(self) -> None:
        """The replica is fenced: all that follows is ours."""

    def refused(self, error: Exception) -> None:
        """The replica cannot be entered."""


class _OpenGate:
    """No lease."""

    tenure = None

    def is_open(self) -> bool:
        return True

    def check(self) -> None:
        return

    def explain(self, error: AnotherWriterError) -> AnotherWriterError:
        return error

    def entered(self) -> None:
        return

    def refused(self, error: Exception) -> None:
        return


OPEN: Gate = _OpenGate()
