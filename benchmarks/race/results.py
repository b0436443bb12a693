"""The result of one race: a row of the table, and what a plot of it needs.

Owns two records and the verdict. Must never contain the way in which they are measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

NEAR: Final = 1.10
"""A client is as fast as can be expected when it takes no more than this multiple of
the lower bound.
"""


@dataclass(frozen=True, slots=True)
class Trace:
    """What a plot needs of one race, in seconds from its start.

    Levels of the server's token bucket around each decision, and the moments of 429s.
    """

    limit: float
    levels: list[tuple[float, float, float]]
    """moment, level before and after"""
    refused: list[float]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the result, times in seconds.

    `rejected` counts every 429 that the server sent, retries included.
    """

    client: str
    variant: str
    workload: str
    clock: str
    calls: int
    answered: int
    rejected: int
    failed: int
    seconds: float
    """from the first arrival until every call has its answer or its error and the
    server's buckets are out of debt
    """
    bound: float
    ratio: float
    """seconds / bound; it means little where calls failed"""
    debt: float
    """seconds of `seconds` that the server's buckets still were in debt after the last
    answer
    """
    wait_p50: float
    """of the calls that were admitted: from arrival until the server let it in"""
    wait_p99: float
    wait_longest: float
    error: str
    """the first error that a call ended with"""
    cpu_seconds: float
    """of the process: client, SDK and, on the virtual clock, the server"""
    stall_seconds: float
    """CPU time of the longest callback: so long the event loop is kept from everything
    else
    """
    trace: Trace | None = field(default=None, repr=False, compare=False)

    @property
    def verdict(self) -> str:
        """Return what clocks are compared by: clean or not, and near the bound or not.

        Clean means no 429 and no failure.
        """
        clean = (
            "clean"
            if not (self.rejected or self.failed)
            else "429s"
            if not self.failed
            else "failures"
        )
        return clean if self.failed else f"{clean}, {'near' if self.ratio <= NEAR else 'slow'}"


MEASURED: Final = ("cpu_seconds", "stall_seconds")
"""The fields that depend on the machine; the others are the same for the same seed,
byte for byte.
"""
