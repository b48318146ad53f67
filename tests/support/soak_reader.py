"""A process that reads a replica in place while its history is worked on.

Run as a program with the replica and a seed. It says, a line each:

* ``R <txid> <digest>``: a transaction saw this state, twice, and SQLite found it sound;
* ``G <txid>``: the state went away while it was read;
* ``M <count>``: a connection that follows has moved so often by now.

It ends at the end of its input. Anything else that happens ends it with a traceback.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time

import apsw
from support.ledger import digest_of

from sqlitereplica import NotRestorableError, connect, restore_points

__all__ = ["unpatched"]


def unpatched(image: bytes) -> bytes:
    """An image with the schema cookie that the database has, below 65536."""
    return image[:40] + bytes(2) + image[42:]


class _Reader:
    def __init__(self, replica: str, seed: str) -> None:
        self.rng = random.Random(seed)
        self.replica = replica
        # Without a cache every page is a request, which takes its time on S3.
        self.sizes = [1 << 20, 1 << 25]
        if not replica.startswith("s3:"):
            self.sizes += [1 << 10, 1 << 16]
        self.moves = 0
        self.ended = threading.Event()

    def run(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()
        while not self.ended.is_set():
            size = self.rng.choice(self.sizes)
            options = {"cache_size": size, "refresh": self.rng.choice((0, 0.01, 0.1))}
            if self.rng.random() < 0.3:
                points = restore_points(self.replica)
                options["txid"] = self.rng.choice(points[-20:]).txid
            try:
                connection = connect(self.replica, **options)
            except NotRestorableError:
                if "txid" not in options:
                    raise
                _say("G", options["txid"])
                continue
            self.follow(connection, self.rng.randrange(1, 30))
            connection.close()

    def follow(self, connection: apsw.Connection, count: int) -> None:
        """Several transactions on one connection, which never goes back."""
        last = 0
        for _ in range(count):
            if self.ended.is_set():
                return
            txid = 0
            try:
                with connection:
                    first, txid = self.look(connection)
                    time.sleep(self.rng.random() / 20)
                    if self.rng.random() < 0.3:
                        assert connection.execute("pragma integrity_check").get == "ok"
                    second, again = self.look(connection)
            except NotRestorableError as error:
                if error.kind != "txid":
                    raise
                _say("G", txid)
                continue
            assert (first, txid) == (second, again)
            assert txid >= last
            self.moves += bool(last) and txid > last
            last = txid
            _say("R", txid, first)
            _say("M", self.moves)

    def look(self, connection: apsw.Connection) -> tuple[str, int]:
        """The digest of all pages, and the transaction."""
        digest = digest_of(unpatched(connection.serialize("main")))
        return digest, int(connection.execute("pragma replica_txid").get)

    def _watch(self) -> None:
        while os.read(0, 100):
            continue
        self.ended.set()


def _say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


if __name__ == "__main__":
    _Reader(*sys.argv[1:]).run()
