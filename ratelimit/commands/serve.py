"""`ratelimit serve`: FakeOpenAI at an address, until it is stopped.

Owns what is printed, and the end of the process. Must never read arguments (the command
line does that) or hold limits of its own.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ratelimit.commands import CommandError
from ratelimit.testing.ledger import Entry
from ratelimit.testing.server import FakeOpenAI
from ratelimit.testing.variants import rules_of

__all__ = ["serve"]

PAUSE: Final = 1.0
"""Seconds between two lines of the summary, while requests come."""

_show = functools.partial(print, flush=True)


def serve(
    *,
    variant: str = "P",
    rpm: float | None = 500,
    tpm: float | None = 30_000,
    rpd: float | None = None,
    tpd: float | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    seed: int = 0,
    show: Callable[[str], None] = _show,
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Serve until Ctrl-C or a termination signal, and return the exit status, 0.

    :param show: prints a line at once, also into a file or pipe.
    :param wait: sleeps, in seconds, between two looks at the ledger.

    Raises InvalidArgument for unusable limits and CommandError when the address cannot
    be had.
    """
    server = FakeOpenAI(variant, rpm=rpm, tpm=tpm, rpd=rpd, tpd=tpd, seed=seed)
    started = time.monotonic()  # the clock of the server's loop too
    limits = {"RPM": rpm, "TPM": tpm, "RPD": rpd, "TPD": tpd}
    if rules_of(variant).window == "burst":
        limits = {"RPM": rpm}  # no other is enforced

    shown = [f"{limit:,.15g} {name}" for name, limit in limits.items() if limit is not None]
    with (
        contextlib.suppress(KeyboardInterrupt),
        _terminable(),
        _listening(server, host, port) as url,
    ):
        show(f"FakeOpenAI, variant {variant}, {', '.join(shown) or 'no limits'}: {url}")
        show(f"OPENAI_BASE_URL={url} OPENAI_API_KEY=any points the openai client here.")
        show(f"Ctrl-C or `kill {os.getpid()}` stops it.")
        reported = 0
        while True:
            entries = server.ledger.entries()
            for line in summary(entries[reported:], time.monotonic() - started):
                show(line)

            reported = len(entries)
            wait(PAUSE)

    admitted, refused = len(server.ledger.admitted), len(server.ledger.refused)
    show(f"Stopped: {admitted:,} requests admitted, {refused:,} refused.")
    return 0


def summary(entries: Sequence[Entry], seconds: float) -> Iterator[str]:
    """Return the lines that summarise the requests since the last look.

    One line counts all requests, and one more the refusals and failures of each reason,
    with the last sentence that was answered.

    :param seconds: since the start.
    """
    if not entries:
        return

    admitted = sum(entry.admitted for entry in entries)
    yield f"{seconds:10,.1f} s  {admitted:,} admitted, {len(entries) - admitted:,} refused"
    reasons = Counter(entry.reason for entry in entries if entry.reason)
    for reason, count in reasons.items():
        last = next(entry for entry in reversed(entries) if entry.reason == reason)
        said = last.message or reason
        yield f"{'':14}{count:,} x {last.status or reason}  {last.model or '-'}  {said}"


@contextlib.contextmanager
def _listening(server: FakeOpenAI, host: str, port: int) -> Iterator[str]:
    """Serve while the block runs; say in one sentence that an address cannot be had."""
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(server.serve(host=host, port=port))
        except OSError as error:
            # errno is negative when the host's name is not known
            known = error.errno if isinstance(error.errno, int) and error.errno > 0 else None
            reason = os.strerror(known) if known else error.strerror or error
            raise CommandError(
                f"cannot listen at {host}:{port}: {reason}; name another --port, or 0 for any "
                "free one"
            ) from None

        yield url


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let a termination signal end the block as Ctrl-C does.

    A shell's background job ignores Ctrl-C, so it is stopped by `kill`.
    """
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
