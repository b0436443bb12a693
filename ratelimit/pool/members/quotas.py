"""Members that drain one bucket, though each has a limiter of its own.

Owns the look at what answers show of it, and the warning. Must never change a limiter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ratelimit.errors import LimiterWarning, caution
from ratelimit.pool.members.member import Member

_LIMITS: Final = ("x-ratelimit-limit-requests", "x-ratelimit-limit-tokens")
_MOST: Final = 1_000


class SharedQuotas:
    """Compares the accounts and limits that the members' answers show.

    OpenAI counts by organisation and names it in each answer: two members that are
    answered by one organisation, at one address, with the same limits, share them.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, ...], Member] = {}
        self._said: set[frozenset[str]] = set()

    def look(self, member: Member, headers: Mapping[str, str]) -> None:
        """Compare one answer's headers with those of other members; say it once."""
        account = headers.get("openai-organization")
        limits = [headers.get(name) for name in _LIMITS]
        if not account or not any(limits) or len(self._seen) >= _MOST:
            return
        host = str(member.client.base_url.host)
        key = (host, account, *(limit or "" for limit in limits))
        other = self._seen.setdefault(key, member)
        pair = frozenset({member.name, other.name})
        if other.limiter is member.limiter or pair in self._said:
            return
        self._said.add(pair)
        caution(
            f"the pool's members {other.name!r} and {member.name!r} are answered by one account"
            " with the same limits: they drain one bucket, and each is filled as if it were its"
            ' own. Put them on one limiter: Member(..., quota="a-name") for both',
            LimiterWarning,
            stacklevel=3,
        )
