"""What a refusal says: which limit, how far over it, and how long to wait.

Owns how a refusal is put together from status, headers and body, and the order in which
a pause is read. Must never do I/O, read a clock (an HTTP date is compared with the
answer's own Date) or act on anything: `control/` decides. Never raises: a body of any
shape, or none, gives at least "refused, nothing more is known".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as declared
from typing import Final

from ratelimit.feedback.finality import (
    CREDIT_ADVICE,
    KIND_CODES,
    LIMITED_CODES,
    NO_ACCESS_ADVICE,
    OVERLOADED_CODES,
    SLOW_DOWN_CODES,
    Finality,
    is_quota,
    is_refusing,
    judge,
    too_large,
)
from ratelimit.feedback.headers import Reading, header_values, read_headers
from ratelimit.feedback.messages import MESSAGES, Details, Said, read_details, read_message
from ratelimit.feedback.times import parse_duration, seconds_until
from ratelimit.feedback.untrusted import (
    LONGEST,
    amount,
    decoded,
    field,
    http_status,
    is_filled,
    pairs,
    text,
)
from ratelimit.limits import MINUTE

REFUSING_STATUSES: Final = frozenset({400, 402, 403, 413, 429, 498, 503, 529})
"""The HTTP statuses of refusals; 498 is Groq's for a tier without capacity. A 413 is
one where it names a limit, a 400 or 403 where it surely speaks of a rate.
"""

_RATED_CODES: Final = LIMITED_CODES - KIND_CODES.keys()
"""Codes of a rate alone, whatever the status beside them."""

_RATED_TEXT: Final = re.compile(r"^(api )?rate limit (exceeded|reached)\b", re.IGNORECASE)
"""How a refusal with another status begins (GitHub's 403)."""

LONGEST_WAIT: Final = LONGEST
"""Seconds; a longer pause is a mistake and is not obeyed."""

_SHORTEST_WAIT: Final = 0.001
_MOST_USED: Final = 2.0
"""Of the limit. The server clamps what is used at it, or names a little more."""
_NAMES: Final = ("code", "type", "status")
_BESIDES: Final = (*_NAMES, "metadata", "details")
_HOLDERS: Final = ("error", "errors", "detail")
"""Where an error stands in a body that has no message itself; the first one always."""
_DEEPEST: Final = 2
"""Errors inside errors that are looked into."""
_LONGEST_TEXT: Final = 4_000
_LASTING_ADVICE: Final = (
    "The server goes on refusing after a minute's pause. Look at the account's limits and credit "
    "in the provider's console."
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal. Every figure is None where the server does not say it."""

    kind: str | None = None
    """What ran out, named as in `Reading.name`: "tokens", "requests", ..."""
    period: float | None = None
    """Seconds over which it is limited."""
    limit: float | None = None
    """Amount per period."""
    used: float | None = None
    """Amount used, of the limit. The server clamps it at the limit, so that `wait` is a
    lower bound where the level is below zero.
    """
    wait: float | None = None
    """Seconds until it may be tried again."""
    hopeless: bool = False
    """Whether no wait helps: too large, quota, billing."""
    may_be_final: bool = False
    """Whether this is the word of one server for spent credit, and of another for a
    rate: when a call after a minute's pause is refused in the same way, `as_final` is
    what it means.
    """
    slow_down: bool = False
    """Whether the rate grew too fast."""
    overloaded: bool = False
    """Whether the server lacks capacity, whatever the account's limits are."""
    advice: str = ""
    """What helps, in plain words, where waiting does not; "" where it does."""
    code: str = ""
    """The server's own code, or its type, or ""."""
    message: str = declared(default="", repr=False)
    """The server's text, at most 4,000 characters. Not in the repr: it may quote a
    prompt or a key.
    """

    def as_final(self) -> Refusal:
        """Return this refusal as one that no wait helps against."""
        if self.hopeless:
            return self
        if self.may_be_final:  # so it was money, and none of the limits
            return _final(replace(self, kind=None, period=None), CREDIT_ADVICE)
        return _final(self, _LASTING_ADVICE)


def read_refusal(
    status: object,
    headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]] | None,
    body: object,
    host: str = "",
) -> Refusal | None:
    """Read an answer as a refusal.

    None when it is none: a success, a bad request, an ordinary server error, or a 400,
    403 or 413 that is not about a limit.

    :param status: the HTTP status.
    :param headers: a mapping or pairs, or None.
    :param body: bytes, text, the decoded JSON, an SDK's error body, or None.
    :param host: the server's host name: the same code means one thing at OpenAI and
        another elsewhere.
    """
    status = http_status(status)
    if status is None or status not in REFUSING_STATUSES:
        return None

    error = _error(body)
    message = text(field(error, "message"))
    codes = codes_of(error)
    code = text(field(error, "code"), 100) or text(field(error, "type"), 100)
    said, details = read_message(message), read_details(error)
    if status == 413 and not (is_refusing(codes) or _names_limit(body, said)):
        return None  # of a body with too many bytes
    if status in {400, 403} and _RATED_CODES.isdisjoint(codes) and not _RATED_TEXT.match(message):
        return None
    readings = _readings(headers, details)
    verdict = judge(status, codes, message, host)
    refusal = _limit_named(said, details, codes, readings)
    if refusal.kind is None and verdict.finality is not Finality.FINAL and is_quota(codes):
        # what remains of an unnamed quota is Alibaba's, which recovers within a minute
        refusal = replace(refusal, kind="tokens", period=MINUTE)
    refusal = replace(
        refusal,
        wait=_wait(headers, said, details, refusal, readings),
        slow_down=bool(SLOW_DOWN_CODES.intersection(codes)),
        overloaded=(
            status in {498, 503, 529}
            or bool(OVERLOADED_CODES.intersection(codes))
            or "sufficient resources" in message
        ),
        code=code,
        message=message,
    )
    if verdict.finality is Finality.MAY_BE_FINAL:
        return replace(refusal, may_be_final=True)

    advice = verdict.advice or _size_advice(status, said, details)
    return _final(refusal, advice) if advice else refusal


def _final(refusal: Refusal, advice: str) -> Refusal:
    return replace(
        refusal, hopeless=True, may_be_final=False, overloaded=False, wait=None, advice=advice
    )


def _error(body: object, depth: int = 0) -> object:
    """Find `message`, `type`, `code` and details in a body of any shape.

    :param depth: how many objects it stands in.
    """
    found = _first(decoded(body))
    if found is None or isinstance(found, (str, int, float)):
        return {"message": found if isinstance(found, str) else text(body)}

    said = [text(field(found, name)) for name in ("error", *MESSAGES)]
    holders = _HOLDERS if not said[1] else _HOLDERS[:1] if depth == 0 else ()
    for name in holders if depth < _DEEPEST else ():
        inner = _first(field(found, name))
        is_text = isinstance(inner, str) and name != "errors"
        if is_filled(inner) and not (is_text or isinstance(inner, (int, float))):
            return _error(inner, depth + 1)

    message = ": ".join(dict.fromkeys(filter(None, said)))[:_LONGEST_TEXT]
    return {"message": message, **{name: field(found, name) for name in _BESIDES}}


def _first(value: object) -> object:
    """Return the first element of a list, as Google wraps its errors in one."""
    for _ in range(_DEEPEST):
        value = value[0] if isinstance(value, list) and value else value
    return value


def codes_of(error: object) -> set[str]:
    """Return the codes of an error in lower case: its code, type and status.

    Of a type that is an address, as problem types are, what stands behind the "#".
    """
    named = (text(field(error, name), 100).lower() for name in _NAMES)
    return {code.rpartition("#")[2] for code in named} - {""}


def _readings(headers: object, details: Details) -> list[Reading]:
    """Read the limits in the headers, and in those that came inside the body."""
    outer = pairs(headers)
    readings = read_headers(outer)  # type: ignore[arg-type]  # foreign pairs, read as such
    if details.headers:
        dates = [pair for pair in outer if header_values([pair], "date")["date"]]
        readings += read_headers([*details.headers, *dates])  # type: ignore[list-item]
    return readings


def _limit_named(said: Said, details: Details, codes: set[str], readings: list[Reading]) -> Refusal:
    """Put together which limit ran out, and its figures.

    The text counts before the details, these before the code, and what they leave open
    is filled from the headers' one empty bucket.
    """
    kind, period = said.kind or details.kind, said.period or details.period
    by_code = next((KIND_CODES[code] for code in sorted(codes) if code in KIND_CODES), None)
    if kind is None and by_code is not None:
        kind = by_code[0]
    if period is None and by_code is not None and by_code[0] == kind:
        period = by_code[1]

    limit = said.limit if said.limit is not None else details.limit
    empty = _empty(readings, kind, period)
    if empty is not None:
        kind, period, limit = empty.name, period or empty.period, limit or empty.limit

    limit = limit if limit is not None and limit >= 1 else None
    used = said.used
    if limit is not None and used is not None and used > _MOST_USED * limit:
        used = None
    return Refusal(kind=kind, period=period, limit=limit, used=used)


def _empty(readings: list[Reading], kind: str | None, period: float | None) -> Reading | None:
    """Return the one reading that shows an empty bucket of this kind, if it is one.

    Azure may show nothing of it but its reset.
    """
    found = [
        reading
        for reading in readings
        if (reading.remaining == 0 or reading.limit is reading.remaining is None)
        and kind in {None, reading.name}
        and (period is None or reading.period in {None, period})
    ]
    return found[0] if len(found) == 1 else None


def _wait(
    headers: object, said: Said, details: Details, refusal: Refusal, readings: list[Reading]
) -> float | None:
    """Return the seconds to wait.

    They are read from `retry-after-ms`, the message, `retry-after` (or Traefik's
    `x-retry-in`), the figures, and the reset of the bucket that is empty, in this
    order. A source that is absent, zero, negative, or longer than it can be is passed
    over: Azure sends `retry-after-ms: 0`
    beside `retry-after: 1`, and what is limited per minute is not refused for an hour.
    """
    values = header_values(headers, "retry-after-ms", "retry-after", "x-retry-in", "date")
    milliseconds = amount(values["retry-after-ms"])
    retry_after = parse_duration(values["retry-after"])
    if retry_after is None:
        retry_after = seconds_until(values["retry-after"], values["date"])
    if retry_after is None:
        retry_after = parse_duration(values["x-retry-in"])

    computed = None
    limit, used, requested, period = refusal.limit, refusal.used, said.requested, refusal.period
    if limit and used is not None and requested is not None and period is not None:
        computed = (used + requested - limit) * period / limit

    empty = _empty(readings, refusal.kind, refusal.period)
    named = said.period or details.period
    longest = LONGEST_WAIT if named is None else min(LONGEST_WAIT, named + MINUTE)
    for seconds in (
        None if milliseconds is None else milliseconds / 1_000,
        said.wait,
        details.wait,
        retry_after,
        computed,
        empty.reset if empty is not None else None,
    ):
        if seconds is not None and _SHORTEST_WAIT < seconds <= longest:
            return seconds
    return None


def _names_limit(body: object, said: Said) -> bool:
    """Tell whether a body is an error object, no page, with a text about a limit."""
    is_object = isinstance(decoded(body), (Mapping, list))
    return is_object and (said.too_large or said.limit is not None)


def _size_advice(status: int, said: Said, details: Details) -> str:
    """Return what helps where the request itself can never pass; "" where it can."""
    if details.denied:
        return NO_ACCESS_ADVICE

    limit, requested = said.limit, said.requested
    over = limit is not None and requested is not None and requested > limit >= 1
    return too_large(limit, requested) if over or said.too_large or status == 413 else ""
