"""What a limiter shows of itself: frozen snapshots, and explanations in words.

Owns the room's face.
"""

from ratelimit.statistics.explanation import Explanation, FamilyExplanation, KnownLimit
from ratelimit.statistics.looking import Looking
from ratelimit.statistics.snapshot import FamilyStatistics, Statistics

__all__ = [
    "Explanation",
    "FamilyExplanation",
    "FamilyStatistics",
    "KnownLimit",
    "Looking",
    "Statistics",
]
