"""s3fs as we use it. Imports s3fs: only ``location.py`` imports this, when it is needed."""

from __future__ import annotations

import asyncio
from typing import Any

from s3fs import S3FileSystem

__all__ = ["QuietS3FileSystem"]


class QuietS3FileSystem(S3FileSystem):  # type: ignore[misc]
    """An S3 filesystem that may be collected in any thread.

    s3fs keeps its connections on an event loop of fsspec's. When one of its filesystems
    is collected in a thread with another running loop, as after a ``restore`` in a
    coroutine, it closes them on that one, which fails with a traceback in the log.
    """

    @staticmethod
    def close_session(loop: asyncio.AbstractEventLoop | None, s3: Any) -> None:
        """Close the connections of a client, on the loop that they belong to."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running in (None, loop) or loop is None or not loop.is_running():
            S3FileSystem.close_session(loop, s3)
            return
        # Not waited for: that would block the loop of this thread.
        asyncio.run_coroutine_threadsafe(s3.__aexit__(None, None, None), loop)
