"""What can go wrong with a filesystem, and plans of when it does.

A plan is any function from an ``Operation`` to a ``Fault``, or to None when that operation
is to succeed; the functions here make the usual ones. Numbers count from 1, in the order in
which operations are begun.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

__all__ = ["Fault", "Kind", "Operation", "Plan", "at", "only", "since"]

Kind: TypeAlias = Literal["list", "info", "read", "write", "rename", "delete", "folder"]


class Fault(Enum):
    """One way in which an operation fails or lies. Where it cannot apply it does not."""

    BEFORE = "raises, and was not done"
    AFTER = "raises, but was done"
    TORN = "a write raises when half of it is there"
    SHORT = "a read gives the first half only"
    EMPTY = "a read or a listing gives nothing"
    FLIPPED = "a read gives one wrong bit"
    OTHER = "a read gives the bytes of another file"
    OMITTED = "a listing leaves the newest file out"
    DUPLICATED = "a listing has everything twice"
    REVERSED = "a listing is in the wrong order"
    FOREIGN = "a listing has names that nobody wrote"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation that is asked of a filesystem."""

    number: int
    kind: Kind
    path: str


Plan: TypeAlias = Callable[[Operation], Fault | None]


def at(number: int, fault: Fault = Fault.BEFORE) -> Plan:
    """Let one operation fail."""
    return lambda operation: fault if operation.number == number else None


def since(number: int, fault: Fault = Fault.BEFORE) -> Plan:
    """Let everything fail from one operation on, until the plan is changed."""
    return lambda operation: fault if operation.number >= number else None


def only(kind: Kind, fault: Fault = Fault.BEFORE, *, times: int | None = None) -> Plan:
    """Let operations of one kind fail: the next ``times``, or all."""
    left = times

    def plan(operation: Operation) -> Fault | None:
        nonlocal left
        if operation.kind != kind or left == 0:
            return None
        left = None if left is None else left - 1
        return fault

    return plan
