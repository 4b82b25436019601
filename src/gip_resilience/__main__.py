"""``python -m gip_resilience``: the same as the command ``gip-resilience``."""

import sys

from gip_resilience.cli import main

if __name__ == "__main__":  # pragma: no branch - nobody imports it
    sys.exit(main())
