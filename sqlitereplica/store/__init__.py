"""Replicas on any fsspec filesystem, in Litestream's layout."""

from sqlitereplica.store.encryption import Encryption
from sqlitereplica.store.finding import find_replicas
from sqlitereplica.store.generations import GenerationFile
from sqlitereplica.store.layout import Layout, layout_for
from sqlitereplica.store.leaseobject import LeaseObject
from sqlitereplica.store.pins import Pin, pinned_txids
from sqlitereplica.store.reader import StoreReader
from sqlitereplica.store.replica import Replica
from sqlitereplica.store.retry import RetryPolicy
from sqlitereplica.store.side import SideFile
from sqlitereplica.store.store import LTXStore
from sqlitereplica.store.writeback import Writeback

__all__ = [
    "Encryption",
    "GenerationFile",
    "LTXStore",
    "Layout",
    "LeaseObject",
    "Pin",
    "Replica",
    "RetryPolicy",
    "SideFile",
    "StoreReader",
    "Writeback",
    "find_replicas",
    "layout_for",
    "pinned_txids",
]
