"""What a refusal says: which limit, how far over it, how long to wait, and whether
waiting can help at all.

Owns: the texts, codes and types of 429s and of their relatives (402, 413, 503, 529),
and the order in which a pause is read. Must never come in: I/O, clocks (an HTTP date is
compared with the answer's own Date), or what to do about it: the limiter decides. Never
raises: a body of any shape, or none, gives at least "refused, nothing more is known".

The message forms (source: OpenAI's answers in public issue threads, Azure's, Groq's,
Mistral's and Anthropic's likewise):

    ... on tokens per min (TPM): Limit 30000, Used 29937, Requested 385. Please try again in 644ms. ...
    ... on input-images per min: Limit 5, Used 5, Requested 1. Please try again in 12s. ...
    ... on requests per min. Limit: 3 / min. Please try again in 20s. ...      (the older form; also "Limit: 3 req/min", "Current: 4 / min")
    ... have exceeded token rate limit of your current ... tier. Please retry after 6 seconds. ...      (Azure; "call rate limit" likewise)
    Request too large for gpt-4o ... on tokens per min (TPM): Limit 30000, Requested 31538. ...
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from ratelimit.feedback.headers import MINUTE, Reading, parse_duration, read_headers
from ratelimit.feedback.untrusted import amount, decoded, field, finite, text

LONGEST_WAIT = 31 * 86_400.0
"""Seconds. A monthly limit can ask for thirty days; a longer pause is taken for a
mistake and not obeyed.
"""

_REFUSING = frozenset({402, 413, 429, 503, 529})
_QUOTA = frozenset(
    {"insufficient_quota", "credit_balance_exhausted", "insufficient_balance", "quota_exceeded"}
)
_BILLING = ("billing_", "account_deactivated", "access_terminated")
_SPENT = ("_spend_limit_exceeded", "_usage_limit_exceeded")
_OVERLOADED = frozenset(
    {
        "server_is_overloaded",
        "overloaded_error",
        "engine_overloaded",
        "service_tier_capacity_exceeded",
        "server_overloaded",
    }
)
_LIMITED = frozenset(
    {"rate_limit_exceeded", "rate_limit_error", "slow_down", "tokens", "requests", "input-images"}
)
_PER = {
    "second": 1.0,
    "sec": 1.0,
    "s": 1.0,
    "minute": MINUTE,
    "min": MINUTE,
    "hour": 3_600.0,
    "day": 86_400.0,
    "month": 30 * 86_400.0,
}

_ON = re.compile(
    r"\bon (?P<kind>[a-z_ -]{1,40}?)[ _]per[ _](?P<per>second|sec|minute|min|hour|day|month)\b",
    re.IGNORECASE,
)
_SHORT = re.compile(r"\((?P<kind>[RTI])P(?P<per>[SMHD])\)")
_AZURE = re.compile(r"exceeded (?:the )?(?P<kind>token|call|request)s? rate limit", re.IGNORECASE)
_FIGURE = re.compile(
    r"\b(limit|used|current|requested)\b:? ~?([0-9][0-9,]{0,20}(?:\.[0-9]{1,6})?)", re.IGNORECASE
)
_TIME = re.compile(
    r"([0-9]{1,15}(?:\.[0-9]{1,12})?) ?(milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d)",
    re.IGNORECASE,
)
_AGAIN = re.compile(
    rf"(?:again|retry|wait) (?:in |after |for )?(?P<time>(?:{_TIME.pattern}[ ,]{{0,2}}){{1,6}})(?![a-z])",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(r"\brequest too large\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal. Every figure is None where the server did not say it.

    `kind`: what ran out, named as in `Reading.name` ("tokens", "requests",
    "input_images", ...). `period`: seconds it is limited over. `limit`, `used`,
    `requested`: as in the message; `used` is clamped at `limit` by the server, so
    `wait` is a lower bound when others are in debt too. `wait`: seconds until it may be
    tried again, one millisecond longer than a text that is cut to milliseconds says.
    `hopeless`: no wait helps (too large, quota, billing); `advice` then says in plain
    words what does; it is "" otherwise. `slow_down`: the rate grew too fast.
    `overloaded`: the server lacks capacity, whatever your limits are. `code`: the
    server's own code, or its type, or "". `message`: its text, cut at 4,000 characters.
    """

    kind: str | None = None
    period: float | None = None
    limit: float | None = None
    used: float | None = None
    requested: float | None = None
    wait: float | None = None
    hopeless: bool = False
    slow_down: bool = False
    overloaded: bool = False
    advice: str = ""
    code: str = ""
    message: str = ""


def read_refusal(
    status: object,
    headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]] | None,
    body: object,
) -> Refusal | None:
    """Read an answer of `status` as a refusal; None when it is none (a success, a bad
    request, an ordinary server error).

    `headers`: a mapping or pairs, or None. `body`: bytes, text, the decoded JSON, an
    SDK's error body, or None. An error that arrives inside a stream that began with 200
    is read as status 429.
    """
    if not isinstance(status, int) or status not in _REFUSING:
        return None
    error = _error(body)
    code, kind_of_error, message = (
        text(error.get(name), 4_000) for name in ("code", "type", "message")
    )
    names = {code.lower(), kind_of_error.lower()}
    said = dict(_said(headers))
    kind, period = _which(message, kind_of_error.lower())
    figures = _figures(message)
    limit, used, requested = figures.get("limit"), figures.get("used"), figures.get("requested")
    advice = _advice(status, names, message, limit, requested)
    overloaded = (
        status in {503, 529} or bool(names & _OVERLOADED) or "sufficient resources" in message
    )
    computed = None
    if limit and used is not None and requested is not None and period is not None:
        computed = (used + requested - limit) * period / limit
    readings = read_headers(said) if kind is None or period is None or limit is None else []
    kind, period, limit, spent = _completed(kind, period, limit, readings)
    return Refusal(
        kind=kind,
        period=period,
        limit=limit,
        used=used,
        requested=requested,
        wait=None if advice else _wait(said, message, computed, spent),
        hopeless=bool(advice),
        slow_down="slow_down" in names,
        overloaded=overloaded and not advice,
        advice=advice,
        code=code or kind_of_error,
        message=message,
    )


def read_error(error: object) -> Refusal | None:
    """Read an error that came inside an answer that began with 200 (a stream's, a
    failed Response's); None when it is no refusal.
    """
    names = {text(field(error, name), 100).lower() for name in ("code", "type")} - {""}
    if names & _OVERLOADED:
        return read_refusal(503, None, {"error": error})
    if names & (_QUOTA | _LIMITED) or any(
        name.endswith(_SPENT) or name.startswith(_BILLING) for name in names
    ):
        return read_refusal(429, None, {"error": error})
    return None


def _error(body: object) -> Mapping[str, object]:
    """Find the mapping that holds `message`, `type` and `code`: the body's "error", or
    the body itself, or a plain text's.
    """
    found = decoded(body)
    if found is None or isinstance(found, str):
        return {"message": text(body)}
    if isinstance(found, list) and found:  # Gemini wraps its errors in a list
        found = found[0]
    inner = field(found, "error")
    if isinstance(inner, str):
        return {"message": inner}
    error = found if inner is None else inner
    return {name: field(error, name) for name in ("message", "type", "code")}


def _said(headers: object) -> Iterable[tuple[str, str]]:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    for pair in pairs if isinstance(pairs, Iterable) else ():
        if isinstance(pair, tuple) and len(pair) == 2:
            yield text(pair[0], 128).lower(), text(pair[1], 128).strip()


def _which(message: str, kind_of_error: str) -> tuple[str | None, float | None]:
    """Tell what ran out and over which period: from the message, else from the error's
    type.
    """
    if match := _ON.search(message):
        return _kind(match["kind"]), _PER[match["per"].lower()]
    if match := _SHORT.search(message):
        kinds, periods = (
            {"R": "requests", "T": "tokens", "I": "images"},
            {"S": 1.0, "M": MINUTE, "H": 3_600.0, "D": 86_400.0},
        )
        return kinds[match["kind"]], periods[match["per"]]
    if match := _AZURE.search(message):
        return ("tokens" if match["kind"].lower() == "token" else "requests"), None
    return (
        _kind(kind_of_error)
        if kind_of_error in {"tokens", "requests", "input-images", "images"}
        else None
    ), None


def _kind(spelled: str) -> str:
    name = spelled.strip().lower().replace("-", "_").replace(" ", "_")
    return "tokens" if name == "tokens_usage_based" else name


def _figures(message: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, figure in _FIGURE.findall(message):
        value = amount(figure.replace(",", ""))
        if value is not None:
            found.setdefault("used" if name.lower() == "current" else name.lower(), value)
    return found


def _completed(
    kind: str | None, period: float | None, limit: float | None, readings: list[Reading]
) -> tuple[str | None, float | None, float | None, float | None]:
    """Fill what the message left open from the headers' one empty bucket; the fourth
    value is that bucket's reset in seconds.
    """
    empty = [
        reading for reading in readings if reading.remaining == 0 and kind in {None, reading.name}
    ]
    if len(empty) != 1:
        return kind, period, limit, None
    reading = empty[0]
    return reading.name, period or reading.period, limit or reading.limit, reading.reset


def _wait(
    said: Mapping[str, str], message: str, computed: float | None, reset: float | None
) -> float | None:
    """Seconds to wait: `retry-after-ms`, the message, `retry-after` in seconds or as a
    date, then what the figures give.

    A source that is absent, zero, negative or beyond `LONGEST_WAIT` says nothing, and
    the next one is asked: Azure sends `retry-after-ms: 0` beside `retry-after: 1`.
    """
    milliseconds = amount(said.get("retry-after-ms"))
    spoken = _spoken(message)
    for seconds in (
        None if milliseconds is None else milliseconds / 1_000,
        None if spoken is None else spoken + 0.001,
        _retry_after(said),
        computed,
        reset,
    ):
        if seconds is not None and 0.001 < seconds <= LONGEST_WAIT:
            return seconds
    return None


def _spoken(message: str) -> float | None:
    """Seconds that "try again in 1m2.5s" or "retry after 6 seconds" names."""
    match = _AGAIN.search(message)
    if match is None:
        return None
    units = {"milliseconds": "ms", "millisecond": "ms", "ms": "ms"}
    parts = (
        figure + units.get(unit.lower(), unit[0].lower())
        for figure, unit in _TIME.findall(match["time"])
    )
    return parse_duration("".join(parts))


def _retry_after(said: Mapping[str, str]) -> float | None:
    spoken = said.get("retry-after")
    if not spoken:
        return None
    seconds = parse_duration(spoken)
    if seconds is not None:
        return seconds
    try:
        wait = (parsedate_to_datetime(spoken) - parsedate_to_datetime(said["date"])).total_seconds()
    # no Date to compare with, or not a date
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return wait if finite(wait) else None


def _advice(
    status: int, names: set[str], message: str, limit: float | None, requested: float | None
) -> str:
    """Say what helps when waiting does not; "" when waiting helps."""
    if any(name.startswith(_BILLING) for name in names):
        return "The account's billing is not active. Add or correct the payment method in the provider's billing settings; waiting does not help."
    if status == 402 or names & _QUOTA or any(name.endswith(_SPENT) for name in names):
        return (
            "The account's credit or monthly spending limit is used up. Add credit, or raise the limit in the billing settings of the"
            " organization or project; waiting does not help before the next billing period."
        )
    over = limit is not None and requested is not None and requested > limit > 0
    if over or status == 413 or _TOO_LARGE.search(message):
        sizes = f" ({requested:,.0f} asked, {limit:,.0f} allowed)" if over else ""
        return (
            f"This one request is larger than the whole limit{sizes}: it can never pass. Shorten the prompt or lower max_tokens, split the"
            " request, use a model with a higher limit, or raise the usage tier."
        )
    return ""
