"""``python -m sqlitereplica``."""

import sys

from sqlitereplica.cli import main

if __name__ == "__main__":
    sys.exit(main())
