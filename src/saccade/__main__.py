"""Where the command begins: Ctrl-C while the command line is still being loaded is answered in words too."""

from __future__ import annotations

import os
import signal
import sys

STOPPED = (130, 143)


def main() -> int:
    """`saccade.cli.main`, loaded inside, so that nothing before it can end in a traceback."""
    try:
        from saccade.cli import main as run

        code = run()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a third Ctrl-C has nothing left to stop
        sys.stderr.write("saccade: stopped\n")
        code = 130
    if code in STOPPED:  # now, and not when the last thread has ended that was getting something ready
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
