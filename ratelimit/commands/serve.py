"""`ratelimit serve`: FakeOpenAI at an address, until it is stopped.

Owns what is printed, and the end of the process. Must never read arguments (the command
line does that) or hold limits of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ratelimit.commands import CommandError
from ratelimit.commands.streams import OutputLost, print_note, print_output
from ratelimit.testing.ledger import Entry
from ratelimit.testing.server import FakeOpenAI
from ratelimit.testing.variants import rules_of

__all__ = ["serve"]

PAUSE: Final = 1.0
"""Seconds between two lines of the summary, while requests come."""

_FIGURE: Final = re.compile(r"\b\d[\d.,]*(?:ms|s|m|h)?(?:\d[\d.]*(?:ms|s|m))*\b")
"""An amount or a time, such as "29,100" or "1m2.5s"."""


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
    show: Callable[[str], None] = print_output,
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Serve until Ctrl-C or a termination signal, and return the exit status, 0.

    :param show: prints a line at once, also into a file or pipe. Once it raises
        `OutputLost`, the server goes on in silence.
    :param wait: sleeps, in seconds, between two looks at the ledger.

    Raises InvalidArgument for unusable limits and CommandError when the address cannot
    be had.
    """
    show = _until_lost(show)
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

    show(f"Stopped: {_counts(server.ledger.entries(), 'requests ')}.")
    return 0


def _until_lost(show: Callable[[str], None]) -> Callable[[str], None]:
    """Return a `show` that says once on stderr why it fails, and then is silent."""
    is_lost = False

    def shown(line: str) -> None:
        nonlocal is_lost
        if is_lost:
            return

        try:
            show(line)
        except OutputLost as error:
            is_lost = True
            print_note(f"ratelimit serve: {error}; the server goes on, and prints no more")

    return shown


def summary(entries: Sequence[Entry], seconds: float) -> Iterator[str]:
    """Return the lines that summarise the requests since the last look.

    One line counts all requests, and one more the refusals and failures of each status,
    reason and sentence that was answered.

    :param seconds: since the start.
    """
    if not entries:
        return

    yield f"{seconds:10,.1f} s  {_counts(entries)}"
    alike = Counter(
        (entry.status, entry.reason, entry.model, _without_figures(entry.message))
        for entry in entries
        if entry.reason
    )
    for (status, reason, model, pattern), count in alike.items():
        said = next(
            entry.message
            for entry in reversed(entries)
            if (entry.status, entry.reason, entry.model) == (status, reason, model)
            and _without_figures(entry.message) == pattern
        )
        yield f"{'':14}{count:,} x {status or reason}  {model or '-'}  {said or reason}"


def _counts(entries: Sequence[Entry], unit: str = "") -> str:
    """Return how many were admitted, refused with a 429, and answered with an error."""
    refused = sum(not entry.admitted and entry.status == 429 for entry in entries)
    errors = sum(_is_error(entry) for entry in entries)
    admitted = len(entries) - refused - errors
    counts = f"{admitted:,} {unit}admitted, {refused:,} refused"
    return counts + (f", {errors:,} {'error' if errors == 1 else 'errors'}" if errors else "")


def _is_error(entry: Entry) -> bool:
    """Return whether a call was answered with an error, charged or not.

    A 499 stands for a caller that went away.
    """
    return entry.status is not None and entry.status >= 400 and entry.status not in (429, 499)


def _without_figures(message: str) -> str:
    """Return what sentences share that differ by their amounts and times alone."""
    return _FIGURE.sub("#", message)


@contextlib.contextmanager
def _listening(server: FakeOpenAI, host: str, port: int) -> Iterator[str]:
    """Serve while the block runs; say in one sentence that an address cannot be had."""
    try:
        is_name = bool(host.encode("idna"))  # as the socket encodes it
    except UnicodeError:
        is_name = False
    if not is_name:
        raise _no_host(host, "it is no name of a host")

    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(server.serve(host=host, port=port))
        except OSError as error:
            # errno is negative when the host's name is not known
            known = error.errno if isinstance(error.errno, int) and error.errno > 0 else None
            if known is None:
                reason = str(error.strerror or error).partition(" (while")[0]
                raise _no_host(host, reason) from None

            reason = os.strerror(known)
            raise CommandError(
                f"cannot listen at {host}:{port}: {reason}; name another --port, or 0 for any "
                "free one"
            ) from None

        yield url


def _no_host(host: str, reason: str) -> CommandError:
    return CommandError(
        f"cannot listen at host {host or repr(host)}: {reason}; --host takes an address of this"
        " machine, such as 127.0.0.1 or 0.0.0.0"
    )


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
