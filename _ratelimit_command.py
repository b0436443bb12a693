"""The console script `ratelimit`, from its first line on.

Owns the moment before the package is loaded: Ctrl-C ends it with status 130 and without
a traceback. Must never import the package at its top, or do what a command does.
"""

import os
import signal
import sys


def main() -> int:
    """Load the command line and run it."""
    before = signal.getsignal(signal.SIGINT)
    # A shell's background job ignores Ctrl-C, and goes on to do so.
    if before is signal.default_int_handler:
        # An exception could be swallowed by whatever import is at work, or shown by it.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from ratelimit.cli import main as command_line  # noqa: PLC0415  # it takes a while

    signal.signal(signal.SIGINT, before)
    return command_line()


if __name__ == "__main__":
    sys.exit(main())
