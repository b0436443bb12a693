"""What an error object says of a limit: in its text, and in its details.

Owns the sentences that servers write, Google's details and OpenRouter's headers inside
a body. Must never know a status or a code, do I/O or read a clock. Never raises.

The forms of texts (source: answers of OpenAI, Azure, Groq, Mistral and Anthropic in
public issue threads, Google's and Alibaba's pages):

    ... on tokens per min (TPM): Limit 30000, Used 29937, Requested 385. Please try
        again in 644ms. ...
    ... on input-images per min: Limit 5, Used 5, Requested 1. Please try again in 12s.
    ... on requests per min. Limit: 3 / min. Please try again in 20s. ...   (older; also
        "Limit: 3 req/min", "Current: 4 / min")
    ... have exceeded token rate limit of your current ... tier. Please retry after 6
        seconds. ...   (Azure; "call rate limit" likewise)
    Request too large for gpt-4o ... on tokens per min (TPM): Limit 30000, Requested
        31538. ...
    ... exceed your organization's rate limit of 40,000 input tokens per minute ...
        (Anthropic)
    You exceeded your current quota: the TPM limit was triggered   (Alibaba)
    ... request reached max organization concurrency: 3, please try again after 1
        seconds   (Moonshot; "max RPM: 20" likewise)
    Rate limit exceeded: free-models-per-day   (OpenRouter)
    Too many tokens, please wait before trying again.   (Bedrock)

The forms of details:

    Google      "details": [{"@type": "...RetryInfo", "retryDelay": "20.5s"},
                            {"@type": "...QuotaFailure", "violations": [
                                {"quotaId": "GenerateRequestsPerMinutePerProject...",
                                 "quotaValue": "15"}]}]
    OpenRouter  "metadata": {"headers": {"X-RateLimit-Limit": "20", ...}}
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ratelimit.feedback.headers import COUNTED
from ratelimit.feedback.times import parse_duration
from ratelimit.feedback.untrusted import amount, duration, field, items, pairs, text
from ratelimit.limits import PERIODS

MESSAGES: Final = ("message", "msg", "detail", "error_msg")
"""Where an error object has its text."""

_PERIOD = r"(?P<per>second|sec|minute|min|hour|day|month)\b"
_ON: Final = re.compile(rf"\bon (?P<kind>[a-z_ -]{{1,40}}?)[ _]per[ _]{_PERIOD}", re.IGNORECASE)
_PER: Final = re.compile(
    rf"(?:(?P<limit>[0-9][0-9,]{{0,20}}) )?\b(?P<kind>(?:input |output )?tokens?|requests?|models)"
    rf"[ _-]per[ _-]{_PERIOD}",
    re.IGNORECASE,
)
_SHORT: Final = re.compile(r"\b(?P<kind>[RTI])P(?P<per>[SMHD])\b(?:: (?P<limit>[0-9]{1,15})\b)?")
_MOST_IN_FLIGHT: Final = re.compile(r"\bmax [a-z ]{0,20}\bconcurrency: (?P<limit>[0-9]{1,9})\b")
_AZURE: Final = re.compile(
    r"exceeded (?:the )?(?P<kind>token|call|request)s? rate limit", re.IGNORECASE
)
_TOKENS: Final = re.compile(r"\btoo many tokens\b", re.IGNORECASE)
_FIGURE: Final = re.compile(
    r"\b(limit|used|current|requested)\b:? ~?([0-9][0-9,]{0,20}(?:\.[0-9]{1,6})?)", re.IGNORECASE
)
_TIME: Final = re.compile(
    r"([0-9]{1,15}(?:\.[0-9]{1,12})?) ?"
    r"(milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d)",
    re.IGNORECASE,
)
_AGAIN: Final = re.compile(
    r"(?:again|retry|wait) (?:in |after |for )?(?:about |approximately )?"
    rf"(?P<time>(?:{_TIME.pattern}[ ,]{{0,2}}){{1,6}})(?![a-z])",
    re.IGNORECASE,
)
_TOO_LARGE: Final = re.compile(r"\brequest too large\b", re.IGNORECASE)
_SHORT_KINDS: Final = {"R": "requests", "T": "tokens", "I": "images"}
_TRUNCATED: Final = 0.001
"""Seconds that a time which is cut to milliseconds may fall short."""
_QUOTA_PERIOD: Final = re.compile(r"Per(Second|Minute|Hour|Day)")
_QUOTA_LIMIT: Final = re.compile(r"\blimit: ([0-9]{1,15})\b")
_MOST: Final = 20
"""Details, violations and headers that are looked at."""


class Said(NamedTuple):
    """What the text of a refusal says; a figure that it does not name is None."""

    kind: str | None = None
    """What ran out, named as in `Reading.name`."""
    period: float | None = None
    """Seconds over which that is limited."""
    limit: float | None = None
    used: float | None = None
    requested: float | None = None
    """Amounts per period, as they stand in the text."""
    wait: float | None = None
    """Seconds until it may be tried again, one millisecond more than the text names."""
    too_large: bool = False
    """Whether the text says that the request can never pass."""


class Details(NamedTuple):
    """What the details of an error say; a figure that they do not show is None."""

    kind: str | None = None
    """What ran out, named as in `Reading.name`."""
    period: float | None = None
    """Seconds; of several violations the longest counts."""
    limit: float | None = None
    """Amount per period."""
    wait: float | None = None
    """Seconds until it may be tried again."""
    headers: tuple[tuple[str, str], ...] = ()
    """Headers that came inside the body."""

    @property
    def denied(self) -> bool:
        """Whether the quota is 0, so that no wait helps."""
        return self.limit == 0


def read_message(message: str) -> Said:
    """Read the text of a refusal."""
    kind, period, limit = _which(message)
    figures: dict[str, float] = {}
    for name, figure in _FIGURE.findall(message):
        value = amount(figure.replace(",", ""))
        if value is not None:
            figures.setdefault(name.lower(), value)

    return Said(
        kind=kind,
        period=period,
        limit=figures.get("limit", limit),
        used=figures.get("used", figures.get("current")),
        requested=figures.get("requested"),
        wait=_wait(message),
        too_large=bool(_TOO_LARGE.search(message)),
    )


def read_details(error: object) -> Details:
    """Read the details of an error object.

    :param error: the mapping or object that holds `message` and `code`.
    """
    metadata = field(error, "metadata")
    headers = tuple(
        (text(name, 128), text(value, 128))
        for name, value in pairs(field(metadata, "headers"))[:_MOST]
    )
    wait: float | None = None
    worst: tuple[float, str | None, float | None] | None = None
    for detail in list(items(field(error, "details")))[:_MOST]:
        kind = text(field(detail, "@type"), 200)
        if kind.endswith("RetryInfo"):
            wait = _delay(field(detail, "retryDelay"))
        elif kind.endswith("QuotaFailure"):
            for violation in list(items(field(detail, "violations")))[:_MOST]:
                found = _violation(violation)
                if found is not None and (worst is None or found[0] > worst[0]):
                    worst = found

    if worst is None:
        return Details(wait=wait, headers=headers)

    period, name, limit = worst
    if limit is None and (shown := _QUOTA_LIMIT.search(text(field(error, "message")))):
        limit = amount(shown[1])
    return Details(name, period, limit, wait, headers)


def kind_of(spelled: str) -> str:
    """Return the name in `Reading.name` of what a text or a type calls so."""
    name = spelled.strip().lower()
    name = COUNTED.get(name.replace(" ", "-"), name)
    return name.replace("-", "_").replace(" ", "_")


def _which(message: str) -> tuple[str | None, float | None, float | None]:
    """Return what ran out, over which period in seconds, and the limit beside it."""
    if match := _ON.search(message):
        return kind_of(match["kind"]), PERIODS[match["per"].lower()], None

    if match := _PER.search(message):
        kind = match["kind"].lower()
        # OpenRouter's "models-per-day" counts requests to them
        name = "requests" if kind == "models" else kind_of(kind.rstrip("s") + "s")
        limit = amount((match["limit"] or "").replace(",", ""))
        return name, PERIODS[match["per"].lower()], limit

    if match := _MOST_IN_FLIGHT.search(message):
        return "concurrency", None, amount(match["limit"])

    if match := _SHORT.search(message):
        kind, limit = _SHORT_KINDS[match["kind"]], amount(match["limit"])
        return kind, PERIODS[match["per"].lower()], limit

    if match := _AZURE.search(message):
        return ("tokens" if match["kind"].lower() == "token" else "requests"), None, None

    return ("tokens" if _TOKENS.search(message) else None), None, None


def _wait(message: str) -> float | None:
    """Return the seconds of "try again in 1m2.5s" or "retry after 6 seconds"."""
    match = _AGAIN.search(message)
    if match is None:
        return None

    spoken = ""
    for figure, unit in _TIME.findall(match["time"]):
        short = "ms" if unit.lower().startswith(("ms", "milli")) else unit[0].lower()
        spoken += figure + short
    seconds = parse_duration(spoken)
    return None if seconds is None else seconds + _TRUNCATED


def _violation(violation: object) -> tuple[float, str | None, float | None] | None:
    """Return period, kind and limit of one violated quota; None without a period."""
    quota = text(field(violation, "quotaId"), 200)
    match = _QUOTA_PERIOD.search(quota)
    if match is None:
        return None

    metric = f"{quota} {text(field(violation, 'quotaMetric'), 200)}".lower()
    kind = None
    if "input" in metric and "token" in metric:
        kind = "input_tokens"
    elif "token" in metric:
        kind = "tokens"
    elif "request" in metric:
        kind = "requests"
    return PERIODS[match[1].lower()], kind, amount(field(violation, "quotaValue"))


def _delay(value: object) -> float | None:
    """Read a protobuf duration in seconds: "20.5s", or its fields."""
    if isinstance(value, str):
        return parse_duration(value)
    return duration(field(value, "seconds"))
