"""What is noted of a call besides its payment.

Owns the record. Must never decide anything.
"""

from __future__ import annotations

from typing import Any

from ratelimit.control.admitted import Admitted


class Notes:
    """What is noted of a call besides its payment, made with the first note."""

    __slots__ = ("abandoned", "around", "claimed", "headers_at", "record", "waited")

    def __init__(self) -> None:
        self.claimed = False
        """Whether an HTTP attempt was sent: a retry has to be admitted by itself."""
        self.abandoned = False
        """Whether it failed, so that the call's answer belongs to another one."""
        self.headers_at: float | None = None
        """When its headers came, in seconds of the clock."""
        self.record: Admitted | None = None
        """Its admission with what was charged shortly before, for its headers."""
        self.waited = 0.0
        """For how many seconds the call has waited for its turn."""
        self.around: Any = None
        """The lease around this one, see `AdmittedLease.around`."""
