"""How events and waits are said in words.

Owns the sentences that logs, explanations and errors share. Must never hold more than
the records do.
"""

from __future__ import annotations

from typing import Final

from ratelimit.events.records import Concluded, Outlook, Reason, Refused
from ratelimit.limits import Limit, whole

_REASONS: Final[dict[Reason, str]] = {
    "limit": "a limit is used up",
    "pause": "the server has refused a call, and all calls pause",
    "concurrency": "as many calls are in flight as may be",
    "first_answer": "one call goes alone, to show how full the server's buckets are",
    "queue": "calls in front of it wait",
}


def label_of(name: str, per: float) -> str:
    """Return the label of a limit, as in `Statistics`: "tokens/60s".

    :param per: its period in seconds.
    """
    return f"{name}/{per:g}s"


def label(limit: Limit | None) -> str | None:
    """Return a limit's label, None for none."""
    return None if limit is None else label_of(limit.name, limit.per)


def about(
    reason: Reason,
    limit: str | None,
    needs: float | None,
    level: float | None,
    amount: float | None,
) -> str:
    """Return for what a call waits, in words."""
    if reason != "limit" or None in {limit, needs, level, amount}:
        return _REASONS[reason]
    needed, left, full = (whole(round(one or 0.0)) for one in (needs, level, amount))
    return f"it needs {needed} of {limit}, where {left} of {full} are left"


def when(predicted: float | None) -> str:
    """Return when a call goes, in words."""
    if predicted is None:
        return "it goes when a call in flight ends"
    return f"it goes in {predicted:,.1f} s at the earliest"


def waits(seen: Outlook) -> str:
    """Return a sentence about a call that waits, without a full stop."""
    amount = None if seen.limit is None else seen.limit.amount
    place = f"{seen.position:,} calls in front; " if seen.position else ""
    cause = about(seen.reason, label(seen.limit), seen.needs, seen.level, amount)
    return f"{place}{cause}; {when(seen.predicted)}"


def refused(event: Refused) -> str:
    """Return the sentence about a refusal: what happened, and what to do."""
    what = "the server lacks capacity" if event.overloaded else "429: the server refused a call"
    if event.model:
        what += f" of {event.model}"
    if event.limit:
        what += f" for {event.limit}"
    if event.code:
        what += f" ({event.code})"
    said = []
    if event.server_limit is not None:
        said.append(f"limit {whole(event.server_limit)}")
    if event.server_used is not None:
        said.append(f"used {whole(event.server_used)}")
    if event.server_wait is not None:
        said.append(f"try again in {event.server_wait:,.1f} s")
    parts = [what, f"it says: {', '.join(said) or 'nothing more'}"]
    if event.believed_limit is not None and event.believed_level is not None:
        level, limit = whole(round(event.believed_level)), whole(event.believed_limit)
        parts.append(f"level here: {level} of {limit}")
    parts.append(f"{event.in_flight} in flight, {event.waiting} waiting")
    if not event.final:
        parts.append(f"family {event.family} goes on in {event.pause:,.1f} s")
    return "; ".join(parts) + (f". {event.remedy}" if event.remedy else "")


def concluded(event: Concluded) -> str:
    """Return the sentence about a conclusion."""
    if event.about == "concurrency":
        number = "any number of" if event.after is None else f"at most {event.after}"
        return f"by its refusals, {number} calls may be in flight at once"
    if event.about == "charges_input_only":
        return "its server charges the input at admission, and the output at the end"
    if event.about == "settles":
        kept = "gives back" if event.after else "keeps"
        return f"its server {kept} what calls do not use"
    return f"its server's accounting is {event.after}, not {event.before}"
