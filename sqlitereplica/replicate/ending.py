"""When to stop what runs, if nobody did: the end of the process, not of its main thread.

When the main thread has ended Python waits for all other threads but the daemons. They may
go on for hours, and commit. Before it waits it shuts down every pool of threads; s3fs resolves
names in one, so from then on a store that has to be connected anew may not be reached. Hence
two moments:

1. The main thread has ended. If no other thread is left that could commit, everything is
   stopped, while stores can be reached. Else what was committed so far is flushed, and all
   goes on.
2. All those threads have ended. What still runs is stopped.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable
from types import FrameType

__all__ = ["at_exit"]


def at_exit(stop: Callable[[], object], flush: Callable[[], object]) -> None:
    """Have ``stop`` called once at the end, and ``flush`` before if that is not near."""

    def main_thread_ended() -> None:
        if not _others_go_on():
            stop()
            return
        # Registered only now, so that it comes before what closes connections at exit.
        atexit.register(stop)
        flush()

    # The plain one comes when all threads and pools have ended.
    getattr(threading, "_register_atexit", atexit.register)(main_thread_ended)


def _others_go_on() -> bool:
    """Whether there are threads that Python will wait for, and that have something to do."""
    frames = sys._current_frames()
    own = threading.get_ident(), threading.main_thread().ident
    return any(
        not thread.daemon
        and thread.ident not in own
        and not _is_idle(frames.get(thread.ident or 0))
        for thread in threading.enumerate()
    )


def _is_idle(frame: FrameType | None) -> bool:
    """Whether a thread is one of a pool and waits for work: there will be none any more."""
    if frame is None or frame.f_code.co_name != "_worker":
        return False
    return frame.f_globals.get("__name__") == "concurrent.futures.thread"
