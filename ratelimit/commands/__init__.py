"""The commands behind `ratelimit`: one file or folder each, and what they share.

Owns `CommandError`, the one way for a command to refuse its input. Must never hold
anything that the library itself needs.
"""

from __future__ import annotations


class CommandError(Exception):
    """The input of a command cannot be used.

    The message is the one sentence that the user sees; the exit status is 2.
    """
