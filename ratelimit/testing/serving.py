"""The body of `ratelimit serve`: one server until Ctrl-C, with a line for every
refusal.

Owns: what is printed. What must never come in: reading of arguments (the command line
does that), limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ratelimit.testing.ledger import Entry
from ratelimit.testing.server import FakeOpenAI

__all__ = ["serve_command"]


def serve_command(
    *,
    variant: str = "P",
    rpm: float | None = 500,
    tpm: float | None = 30_000,
    rpd: float | None = None,
    tpd: float | None = None,
    port: int = 8080,
    host: str = "127.0.0.1",
    seed: int = 0,
    print: Callable[[str], None] = print,  # noqa: A002 - the caller's print takes the place of ours
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Serve until KeyboardInterrupt and return the exit status, 0; `wait` is called
    with the seconds between two looks at the ledger.

    Raises InvalidArgument for unusable limits and OSError when the port is taken.
    """
    server = FakeOpenAI(variant, rpm=rpm, tpm=tpm, rpd=rpd, tpd=tpd, seed=seed)
    seen, started = 0, time.monotonic()  # the clock of the server's loop too
    try:
        with server.serve(host=host, port=port) as base_url:
            limits = {"rpm": rpm, "tpm": tpm, "rpd": rpd, "tpd": tpd}
            shown = ", ".join(
                f"{limit:,.15g} {name.upper()}"
                for name, limit in limits.items()
                if limit is not None
            )
            print(f"FakeOpenAI, variant {variant}, {shown or 'no limits'}: {base_url}")
            print(
                f"OPENAI_BASE_URL={base_url} OPENAI_API_KEY=any points the openai client here; Ctrl-C ends."
            )
            while True:
                for entry in (entries := server.ledger.entries())[seen:]:
                    if not entry.admitted:
                        print(_line(entry, entry.time - started))
                seen = len(entries)
                wait(0.2)
    except KeyboardInterrupt:
        print(
            f"{len(server.ledger.admitted):,} calls admitted, {len(server.ledger.refused):,} refused."
        )
    return 0


def _line(entry: Entry, seconds: float) -> str:
    """One refusal, so many seconds after the start."""
    return f"{seconds:10,.3f} s  {entry.status or '...'}  {entry.model or '-'}  {entry.message or entry.reason}"
