"""Whether the calling thread may be held up.

Owns the one question. Must never import an event loop: the libraries are looked for
among the modules that the program has imported already.
"""

from __future__ import annotations

import sys


def runs_event_loop() -> bool:
    """Whether this thread runs an event loop, of asyncio or trio."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            return True

    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())
