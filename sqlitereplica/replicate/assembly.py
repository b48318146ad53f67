"""How engine, lines and mirrors are made of the options of a Replicator, and joined."""

from __future__ import annotations

from typing import NamedTuple

from sqlitereplica.capture import Capture, TableFile
from sqlitereplica.replicate.driver import driver
from sqlitereplica.replicate.engine import Engine
from sqlitereplica.replicate.gate import OPEN
from sqlitereplica.replicate.leasing import LeaseGate, Leasing
from sqlitereplica.replicate.line import Line
from sqlitereplica.replicate.metafolder import MetaFolder
from sqlitereplica.replicate.mirroring import MirrorWorker
from sqlitereplica.replicate.options import Options
from sqlitereplica.replicate.spool import Spool

__all__ = ["Assembly", "assemble"]


class Assembly(NamedTuple):
    """What replicates one database; nothing of it runs yet."""

    engine: Engine
    lines: list[Line]
    mirrors: list[MirrorWorker]


def assemble(
    options: Options, copy: str, meta: MetaFolder, leasing: Leasing | None
) -> Assembly:
    """Make everything; the locked ``meta`` is whose files are written."""
    engine = _make_engine(options, copy, meta)
    lines: list[Line] = []
    for replica in options.replicas:
        leads = replica is options.replicas[0]
        line = Line(
            replica.display_name,
            replica.open,
            engine,
            folder=meta.spool,
            node_id=meta.node_id,
            history=options.history.for_replica(replica),
            observer=options.observer,
            peers=lambda: [line.shop for line in lines],
            gate=OPEN if leasing is None else LeaseGate(leasing, leads=leads),
        )
        lines.append(line)
    mirrors = [
        MirrorWorker(
            mirror,
            options.connect,
            database=options.path,
            spool=engine.spool,
            coordinator=engine,
            observer=options.observer,
        )
        for mirror in options.mirrors
    ]
    engine.workers = [*(line.worker for line in lines), *mirrors]
    return Assembly(engine, lines, mirrors)


def _make_engine(options: Options, copy: str, meta: MetaFolder) -> Engine:
    capture = Capture(
        options.path,
        options.connect,
        copy=copy,
        emit=lambda i, changes: engine.emit(i, changes),  # noqa: PLW0108
        spool=meta.spool,
        set_wal=options.set_wal,
        # What is taken from the WAL is held twice for the moment of a read.
        buffer_size=options.buffer_size // 4,
        node_id=meta.node_id,
    )
    spool = Spool(
        meta.spool,
        memory_limit=options.buffer_size // 2,
        disk_limit=options.spool_size,
    )
    engine = Engine(
        capture,
        spool,
        TableFile(meta.path),
        sync_interval=options.sync_interval,
        observer=options.observer,
        wake=lambda: driver().wake(engine),
    )
    return engine
