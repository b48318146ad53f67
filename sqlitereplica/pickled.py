"""Errors that survive pickle: with their fields, their notes and their causes.

An error may go from a worker of another process or host to who asked. By itself an
exception is made anew from its ``args``, which ours are not made of; and what caused it is
left behind. So each of ours is taken apart here and put together without its ``__init__``.

Causes are often foreign, and some cannot be pickled, or, worse, can and not be read again:
that would take the answer away, and with some executors the whole pool. Such a cause is
replaced by a ``RuntimeError`` that says what it was.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

__all__ = ["parts_of", "portable", "revived"]

_E = TypeVar("_E", bound=BaseException)

_MOST_CAUSES = 8

Parts: TypeAlias = tuple[
    type[BaseException],
    tuple[Any, ...],
    Mapping[str, Any],
    Sequence[BaseException],
]


def parts_of(error: BaseException) -> Parts:
    """What ``revived`` makes the error of again."""
    causes = tuple(portable(cause) for cause in _causes(error))
    return type(error), error.args, dict(vars(error)), causes


def revived(
    kind: type[BaseException],
    args: tuple[Any, ...],
    fields: Mapping[str, Any],
    causes: Sequence[BaseException],
) -> BaseException:
    """Put an error together again."""
    error = kind.__new__(kind, *args)
    error.args = args  # OSError's own ``__new__`` leaves them to ``__init__``
    vars(error).update(fields)
    effect = error
    for cause in causes:
        effect.__cause__ = cause
        effect = cause
    return error


def portable(error: _E) -> _E | RuntimeError:
    """The error, if it comes through pickle as it is; else one that says what it was."""
    try:
        again = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001
        again = None  # whatever its own methods raise
    if type(again) is type(error) and str(again) == str(error):
        return error
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    return RuntimeError(f"{name}: {error}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Causes of causes, up to the first that carries its own along."""
    ours = type(error).__reduce__
    seen = [error]
    for _ in range(_MOST_CAUSES):
        cause = seen[-1].__cause__
        if cause is None or cause in seen:
            return
        yield cause
        if type(cause).__reduce__ is ours:
            return
        seen.append(cause)
