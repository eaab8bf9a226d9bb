"""Where `saccade` and `python -m saccade` begin."""

import sys

from saccade.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
