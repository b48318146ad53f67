"""s3fs as we use it. Imports s3fs: only ``location.py`` imports this, when it is needed."""

from __future__ import annotations

import asyncio
from typing import Any

from aiobotocore.session import AioSession
from botocore.loaders import Loader, create_loader
from s3fs import S3FileSystem

from sqlitereplica.store.credentials import Rotation
from sqlitereplica.store.translate import is_refusal

__all__ = ["QuietS3FileSystem"]

_CLOSE_AFTER = 120.0
"""Seconds; requests under way with credentials of before may go on so long."""


_loaders: dict[str | None, Loader] = {}
"""What reads botocore's descriptions of services, by where it looks for them."""


class QuietS3FileSystem(S3FileSystem):  # type: ignore[misc]
    """An S3 filesystem that may be collected in any thread.

    s3fs keeps its connections on an event loop of fsspec's. When one of its filesystems
    is collected in a thread with another running loop, as after a ``restore`` in a
    coroutine, it closes them on that one, which fails with a traceback in the log.

    All of them share what botocore knows of S3: 15 MiB, and most of the time that it takes to
    make a client, which otherwise each would read for itself.

    With a ``rotation`` a request that is refused is made again with new credentials.
    """

    rotation: Rotation | None = None
    session: Any

    async def set_session(self, *arguments: Any, **options: Any) -> Any:
        """Make the client if there is none."""
        if self.session is None:
            session = AioSession(**self.kwargs)
            where = session.get_config_variable("data_path")
            loader = _loaders.setdefault(where, create_loader(where))
            session.register_component("data_loader", loader)
            self.session, self._session_is_owned = session, True
        return await super().set_session(*arguments, **options)

    async def _call_s3(self, method: str, *arguments: Any, **options: Any) -> Any:
        rotation = self.rotation
        if rotation is None:
            return await super()._call_s3(method, *arguments, **options)
        version, client = rotation.version, self._s3
        try:
            return await super()._call_s3(method, *arguments, **options)
        except Exception as error:
            # In another thread: it may ask a server, and this one serves all stores.
            refused = is_refusal(error)
            if not refused or not await asyncio.to_thread(
                rotation.renew, self, version
            ):
                raise
        if client is not None and self._s3 is not client:
            later = asyncio.get_running_loop().call_later
            later(_CLOSE_AFTER, lambda: self.close_session(self.loop, client))
        return await super()._call_s3(method, *arguments, **options)

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
