"""Where the command begins: a signal while the command line is still loaded is answered in words, too."""

from __future__ import annotations

import sys

from saccade.signals import answered_signals, exit_process, say_stopped


def main() -> int:
    """`saccade.cli.main`, loaded inside, so that nothing before it can end in a traceback."""
    words = sys.argv[1:]
    try:
        with answered_signals(words):
            from saccade.cli import main as run

            code = run()
    except KeyboardInterrupt as error:
        code = say_stopped(words, error)
    return exit_process(code)


if __name__ == "__main__":
    sys.exit(main())
