"""One client for many replicas.

To make a client of S3 takes a third of a second of a core, and a job on a small replica
takes less. So who works through many replicas has the filesystem of each kept for the next
one of the same options. Only where threads may use it together; and not with ``credentials``,
which have a client made anew when they are refused.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
from collections import OrderedDict
from dataclasses import replace

from fsspec import AbstractFileSystem

from sqlitereplica.store.location import Location, locate, make_filesystem
from sqlitereplica.store.replica import Replica

__all__ = ["sharing"]

_MOST = 8
_kept: OrderedDict[bytes, AbstractFileSystem] = OrderedDict()
_lock = threading.Lock()


def sharing(replica: Replica) -> Replica:
    """The same replica, with a client that this process has already if it can be.

    Raises:
        StoreError: The filesystem cannot be made.
    """
    if isinstance(replica.url, AbstractFileSystem) or replica.credentials is not None:
        return replica
    location = locate(replica.url, replica.storage_options).below(replica.path)
    if location.protocol not in ("s3", "s3a"):
        return replica
    return replace(
        replica,
        url=_filesystem(location),
        path=location.root,
        storage_options=None,
        name=replica.display_name,
    )


def _filesystem(location: Location) -> AbstractFileSystem:
    # A child of a fork cannot use its parent's.
    what = (os.getpid(), location.protocol, dict(location.options))
    key = hashlib.blake2b(pickle.dumps(what)).digest()
    with _lock:
        found = _kept.pop(key, None)
        if found is None:
            found = make_filesystem(location)
        _kept[key] = found
        while len(_kept) > _MOST:
            _kept.popitem(last=False)
    return found
