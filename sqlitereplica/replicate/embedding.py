"""Servers that run Python inside of themselves, and fork behind its back.

``os.fork()`` tells everybody who asked (``os.register_at_fork``), and what a child inherited
of ours is closed there before anything else runs (``living.py``, ``sqlite/forking.py``). A
program that embeds Python, as uWSGI does, may call the system's ``fork`` by itself. Then
nobody is told: the child has our connections open, so that **SQLite's locks do not work in
it**, and objects that look as if their threads ran.

* uWSGI is asked before anything is started whether it will do that, and the start refused
  with the option that helps. Likewise where it lets no threads of Python run.
* Whatever else does it is noticed when the child calls us, by the number of its process.
  Then every call is refused. It is too late to close anything: the child may have opened the
  database meanwhile.

A process in which nothing was started may be forked in any way.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from sqlitereplica.errors import DatabaseStateError

__all__ = ["begin_here", "objection_to", "unnoticed_fork"]

_HOOKS = "py-call-uwsgi-fork-hooks"
_began: int | None = None
"""The process in which something was started; None if nothing was."""


def begin_here(path: str) -> None:
    """Note that something of the database at ``path`` is about to be started.

    Raises:
        DatabaseStateError: ``"forked"``: see ``unnoticed_fork``; ``"server"``: this server
            would make that useless or dangerous.
    """
    global _began
    if error := unnoticed_fork(path):
        raise error
    if why := objection_to(sys.modules.get("uwsgi")):
        raise DatabaseStateError(
            f"{path} cannot be replicated: {why}", path=path, kind="server"
        )
    _began = os.getpid()


def unnoticed_fork(path: str) -> DatabaseStateError | None:
    """What to raise in a child of a fork of which Python was not told; None elsewhere."""
    if _began is None or _began == os.getpid():
        return None
    return DatabaseStateError(
        f"{path}: this process is a copy of process {_began}, in which replication runs,"
        " and was made behind Python's back: SQLite's locks do not work in it and it may"
        " lose data. Start replication after the server has forked",
        path=path,
        kind="forked",
    )


def objection_to(uwsgi: Any) -> str | None:
    """Why not to start under uWSGI as it is set; None if nothing is said against it.

    ``uwsgi`` is its module, which is there only in its processes. It is asked with care: it
    is no package of a version that could be demanded.
    """
    options = getattr(uwsgi, "opt", None)
    if options is None:
        return None
    if not _has_threads(uwsgi, options):
        return (
            "uWSGI runs no threads of Python here, so nothing would ever be replicated."
            " Pass --enable-threads"
        )
    before_workers = _ask(uwsgi, "worker_id") == 0
    forks = _ask(uwsgi, "masterpid") != 0 or getattr(uwsgi, "numproc", 1) > 1
    if before_workers and forks and _HOOKS not in options:
        return (
            "uWSGI will fork its workers from this process without telling Python."
            f" SQLite's locks would not work in them. Pass --{_HOOKS} or --lazy-apps, or"
            " call start() in each worker"
        )
    return None


def _has_threads(uwsgi: Any, options: Any) -> bool:
    known = getattr(uwsgi, "has_threads", None)
    if known is not None:
        return bool(known)
    return any(name in options for name in ("enable-threads", "threads"))


def _ask(uwsgi: Any, what: str) -> int:
    return int(getattr(uwsgi, what, lambda: 0)())


def _forget() -> None:
    global _began
    _began = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
