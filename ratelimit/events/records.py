"""The records that a limiter hands to its subscribers.

Owns their fields and units. Must never hold a prompt, an answer, a key or a text that a
server or a user has written: names of models and codes are shortened to what names and
codes consist of.

Every record is frozen and can be pickled. Moments are seconds of the limiter's clock
(`time.monotonic` by default), durations are seconds, amounts are in the unit of their
limit. Labels of limits are those of `Statistics`: "tokens/60s".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from ratelimit.limits import Limit, Limits

LONGEST_NAME: Final = 100
"""Characters of a model's name or a server's code that a record keeps."""

_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9._:/@+*?|!,\[\]-]+")

_KEY: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:sk|pk|rk|gsk|csk|xai|pplx|nvapi|hf|fw|tgp|r8|ghp|github_pat|key)[-_][\w-]{12,}"
    r"|AIza[\w-]{20,}|eyJ[\w-]{8,}\.[\w.-]+"  # Google's, and tokens of a login
    r"|[A-Za-z0-9]{32,})"  # Azure's, Mistral's, and others without a beginning
)

Outcome = Literal["admitted", "timed_out", "cancelled", "too_large", "failed"]
"""How a wait ended."""

Reason = Literal["limit", "pause", "concurrency", "first_answer", "queue"]
"""What a call waits for: a limit's refill; the end of the pause after a refusal; the
end of a call in flight; the first headers, before which one call goes alone; or only
the calls in front.
"""

Source = Literal["header", "refusal", "expiry", "asking", "given"]
"""What changed the limits: headers; a refusal that names a limit; the time after which
a word of the server counts no more; a call that is sent to ask; or the user, by
`RateLimiter.replace`.
"""

Conclusion = Literal["accounting", "settles", "charges_input_only", "concurrency"]
"""How calls are settled; whether what they do not use comes back; whether output is
charged at the end only; how many calls may be in flight.
"""


def name_of(text: str) -> str:
    """Return what a record keeps of a name, a pattern or a code: no text and no key.

    A request may come with a key where a model's name belongs.
    """
    shown = _KEY.sub("_key_", text[: 10 * LONGEST_NAME])
    return _NOT_A_NAME.sub("_", shown[:LONGEST_NAME])


def masked(text: str) -> str:
    """Return a sentence of this package or of a library, cut, without a key."""
    return _KEY.sub("_key_", text[: 3 * LONGEST_NAME])


class Outlook(NamedTuple):
    """Why a call waits, and until when at the earliest."""

    reason: Reason
    limit: Limit | None
    """The limit for which it waits longest."""
    position: int
    """Calls in front."""
    predicted: float | None
    """Seconds until it can go at the earliest, if nothing is given back before; None
    where it waits for another call to end.
    """
    needs: float | None
    """What it needs of that limit, in its unit, like ``level``."""
    level: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in one family of models."""

    at: float
    """When, in seconds of the limiter's clock."""
    family: str
    """The family by its name in `limits=`; "*" where limits hold for all models, ""
    where it is not about one.
    """
    model: str = ""
    """The model that was asked for; "" where the cost was given by hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Event):
    """The server has refused a call: a 429, or what means the same."""

    limit: str | None
    """Which limit ran out, by its label; None where the server does not say it."""
    code: str
    """The server's own code, or ""."""
    server_limit: float | None
    """The limit that the server names, per period."""
    server_used: float | None
    """What the server says was used of it."""
    server_wait: float | None
    """For how many seconds the server asks to wait."""
    believed_level: float | None
    """The level of that limit here, before the refusal was taken into account."""
    believed_limit: float | None
    """That limit as it was held here."""
    in_flight: int
    """Calls in flight, this one included."""
    waiting: int
    """Calls in the queue."""
    pause: float
    """For how many seconds the family admits nobody now."""
    final: bool
    """Whether no wait helps."""
    overloaded: bool
    """Whether the server lacks capacity, whatever the limits are."""
    slow_down: bool
    """Whether the server says that the rate grew too fast."""
    refusals: int
    """Refusals of this family so far, this one included."""
    remedy: str
    """What helps: one sentence of this package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered(Event):
    """The first call was answered after refusals, and no pause holds."""

    seconds: float
    """Since the first of these refusals."""
    refusals: int
    """How many there were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsChanged(Event):
    """The limits that hold are others now."""

    before: Limits
    after: Limits
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Concluded(Event):
    """What is taken for true of the server has changed."""

    about: Conclusion
    before: str | int | None
    after: str | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Degraded(Event):
    """An estimate is a guess; no call was broken."""

    reason: str
    """A sentence of this package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLost(Event):
    """The store that processes share cannot be used; see ``on_store_error=``."""

    reason: str
    """What was met; never a password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreBack(Event):
    """The store that processes share can be used again."""

    seconds: float
    """Since it was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Event):
    """A call begins to wait."""

    call: int
    """A number of the call, the same in its `Waited`."""
    reason: Reason
    limit: str | None
    """The limit that it waits for, by its label."""
    position: int
    """Calls in front."""
    predicted: float | None
    """Seconds until it can go at the earliest, if nothing is given back before; None
    where it waits for another call to end.
    """
    needs: float | None
    """What the call needs of that limit."""
    level: float | None
    """What is there of it."""
    amount: float | None
    """That limit's amount per period."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited(Event):
    """A wait has ended."""

    call: int
    """As in `Waiting`."""
    outcome: Outcome
    reason: Reason
    """What the call waited for when it began to wait."""
    limit: str | None
    position: int
    """Calls in front when it began to wait."""
    predicted: float | None
    """As in `Waiting`."""
    seconds: float
    """For how long it really waited."""
    operation: str
    """The endpoint, such as "chat.completions"; "" where the cost was given by hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission(Event):
    """It is decided whether a call goes, after a wait or without one."""

    outcome: Outcome
    waited: float
    """Seconds; 0 without a wait."""
    operation: str
    """As in `Waited`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed(Event):
    """An attempt of a pool's call has ended; ``model`` is the member's name for it."""

    member: str
    """The member that it went to."""
    asked: str
    """The model that was asked for."""
    moves: bool
    """Whether it ended in a way for which another member may be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled(Event):
    """An answer's usage has taken the place of its estimate."""

    estimated: int
    """Tokens that were expected in all."""
    used: int
    """Tokens that were billed."""
    operation: str
    """As in `Waited`."""
