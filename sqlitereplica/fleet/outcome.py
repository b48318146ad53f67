"""What became of one replica of many: a result or an error, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlitereplica.store import Replica

__all__ = ["Outcome"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T]):
    """One replica of a fleet, and what came of it.

    Attributes:
        replica: Which one.
        result: What the job returned; None if it raised.
        error: What it raised, or a ``JobLostError`` if it did not run to its end.
        seconds: How long it ran, where it ran.
    """

    replica: Replica
    result: T | None
    error: Exception | None
    seconds: float

    @property
    def ok(self) -> bool:
        """True if nothing was raised, and the result does not say that something is wrong."""
        return self.error is None and bool(getattr(self.result, "ok", True))

    def get(self) -> T:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]

    def to_json(self) -> bytes:
        """All of it as one JSON object on one line."""
        import msgspec

        fields: dict[str, Any] = {
            "replica": self.replica.display_name,
            "ok": self.ok,
            "seconds": round(self.seconds, 3),
        }
        if self.error is not None:
            fields["error"] = {
                "type": type(self.error).__name__,
                "kind": getattr(self.error, "kind", ""),
                "message": str(self.error),
            }
        else:
            in_json = getattr(self.result, "to_json", None)
            fields["result"] = msgspec.Raw(in_json()) if in_json else self.result
        return msgspec.json.encode(fields, enc_hook=str)  # paths
