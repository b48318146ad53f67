"""Follow one replica: what ``Ours.follow`` runs. Ends at the end of its input."""

from __future__ import annotations

import sys

from sqlitereplica import Follower


def main() -> None:
    replica, target, interval = sys.argv[1:]
    with Follower(replica, target, interval=float(interval)):
        sys.stdin.read()


if __name__ == "__main__":
    main()
