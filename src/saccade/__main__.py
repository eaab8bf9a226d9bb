"""Where the command begins: Ctrl-C while the command line is still being loaded is answered in words too."""

from __future__ import annotations

import sys


def main() -> int:
    """`saccade.cli.main`, loaded inside, so that nothing before it can end in a traceback."""
    try:
        from saccade.cli import main as run

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("saccade: stopped\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
