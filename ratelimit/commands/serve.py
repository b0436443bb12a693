"""`ratelimit serve`: FakeOpenAI at an address, until Ctrl-C.

Owns nothing but the way there; what it serves and prints is `ratelimit.testing`'s. Must
never come in: limits of its own.
"""

from __future__ import annotations

from ratelimit.commands import CommandError
from ratelimit.testing.serving import serve_command


def serve(
    *,
    variant: str,
    rpm: float,
    tpm: float,
    rpd: float | None,
    tpd: float | None,
    host: str,
    port: int,
    seed: int,
) -> int:
    """Serve until interrupted; return 0."""
    try:
        return serve_command(
            variant=variant, rpm=rpm, tpm=tpm, rpd=rpd, tpd=tpd, host=host, port=port, seed=seed
        )
    except OSError as error:
        raise CommandError(
            f"cannot listen at {host}:{port}: {error.strerror or error}; name another --port, or 0 for any free one"
        ) from None
