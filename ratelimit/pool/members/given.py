"""The members that a pool is given, checked; what cannot be one is answered in words.

Owns those sentences, and that members of one quota are on one limiter. Must never send.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ratelimit.errors import InvalidArgument
from ratelimit.pool.members.member import Member, engine_of

EXAMPLE: Final = "Pool([Member(AsyncOpenAI(), limiter=RateLimiter(rpm=500))])"


def checked(members: object) -> list[Member]:
    """Return the members, each with a limiter; raise for what is no pool."""
    if isinstance(members, Member) or not isinstance(members, Iterable):
        raise InvalidArgument(
            f"a Pool takes a list of members, as in {EXAMPLE}, not {type(members).__name__}"
        )
    found = list(members)
    for member in found:
        if not isinstance(member, Member):
            raise InvalidArgument(
                f"a Pool takes Members, as in {EXAMPLE}, not {type(member).__name__}"
            )
    if not found:
        raise InvalidArgument(f"a Pool needs at least one member, as in {EXAMPLE}")

    kinds = {member.is_async: member.name for member in found}
    if len(kinds) > 1:
        raise InvalidArgument(
            f"the members {kinds[False]!r} (OpenAI) and {kinds[True]!r} (AsyncOpenAI) are of two"
            " kinds: a pool's client is sync or async, so give all members clients of one kind,"
            " or make two pools over the same limiters"
        )
    names = [member.name for member in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidArgument(f"two members are called {name!r}: give each a name= of its own")
    _share(found)
    epochs = {engine_of(member).clock.epoch for member in found}
    if len(epochs) > 1:
        raise InvalidArgument(
            "the members' limiters have different clocks: make all of them with the same clock="
        )
    return found


def _share(members: list[Member]) -> None:
    """Put the members of one quota on one limiter."""
    limiters: dict[str, Any] = {}
    for member in members:
        if member.quota is not None and member.limiter is not None:
            before = limiters.setdefault(member.quota, member.limiter)
            if before is not member.limiter:
                raise InvalidArgument(
                    f"the members of quota={member.quota!r} have different limiters; give one of"
                    " them the limiter, and the others the same or none"
                )
    for member in members:
        if member.limiter is None:
            limiter = None if member.quota is None else limiters.get(member.quota)
            if limiter is None:
                raise InvalidArgument(
                    f"the member {member.name!r} has no limiter: give it limiter=RateLimiter(...),"
                    " or the quota= of a member that has one"
                )
            member.limiter = limiter
