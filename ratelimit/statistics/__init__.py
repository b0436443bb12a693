"""What a limiter shows of itself: frozen snapshots, and explanations in words.

Owns the room's face.
"""

from ratelimit.statistics.explanation import (
    Explanation,
    FamilyExplanation,
    KnownLimit,
    explanation_of,
)
from ratelimit.statistics.snapshot import (
    FamilyStatistics,
    Statistics,
    described,
    statistics_of,
)

__all__ = [
    "Explanation",
    "FamilyExplanation",
    "FamilyStatistics",
    "KnownLimit",
    "Statistics",
    "described",
    "explanation_of",
    "statistics_of",
]
