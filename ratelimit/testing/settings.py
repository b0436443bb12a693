"""The configuration of a server, and the checks of what it was given.

Owns the record `Setup`, and a sentence for every value that cannot be used. Must never
hold state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from ratelimit.errors import InvalidArgument
from ratelimit.testing.answers import Latency
from ratelimit.testing.contents import ToolUse
from ratelimit.testing.quotas import KINDS
from ratelimit.testing.variants import (
    HEADER_FAULTS,
    CacheReads,
    NamedWait,
    Style,
    Tenant,
    rules_of,
)

if TYPE_CHECKING:
    from ratelimit.testing.answers import Answers
    from ratelimit.testing.quotas import Quotas
    from ratelimit.testing.variants import Rules

__all__ = [
    "Setup",
    "above_zero",
    "at_least_one",
    "header_faults",
    "latency_of",
    "limit_changes",
    "rules",
    "seconds",
    "share",
    "tool_use",
    "whole",
]


@dataclass(frozen=True, slots=True)
class Setup:
    """A server's configuration, checked; see FakeOpenAI for what each value means."""

    rules: Rules
    quotas: Quotas
    answers: Answers
    latency: Latency
    level: Mapping[str, float]
    headers_at: Literal["admission", "settle"]
    refusals_cost_requests: bool
    hidden_changes: bool
    ramp_from: float
    pieces: int
    seed: int


def share(value: float, name: str) -> float:
    """Return a share between 0 and 1."""
    if not 0 <= value <= 1:
        raise InvalidArgument(f"{name} is {value!r}; it is a share between 0 and 1")

    return value


def whole(value: int, name: str) -> int:
    """Return a whole number of at least 1."""
    if value < 1 or value != int(value):
        raise InvalidArgument(f"{name} is {value!r}; it is a whole number, at least 1")

    return value


def at_least_one(value: float, name: str) -> float:
    """Return a finite number of at least 1."""
    if not 1 <= value < math.inf:
        raise InvalidArgument(f"{name} is {value!r}; it is a finite number, at least 1")

    return value


def seconds(value: float, name: str) -> float:
    """Return a number of seconds."""
    if not 0 <= value < math.inf:
        raise InvalidArgument(f"{name} is {value!r}; it is a number of seconds")

    return value


def above_zero(value: float, name: str) -> float:
    """Return a number of seconds above zero."""
    if not 0 < value < math.inf:
        raise InvalidArgument(f"{name} is {value!r}; it is a number of seconds above zero")

    return value


def latency_of(given: Latency | float | None) -> Latency:
    """Return a Latency: the given one, the default, or one of a fixed time."""
    if isinstance(given, Latency):
        return given

    return Latency() if given is None else Latency(base=given, per_token=0.0, spread=0.0)


def tool_use(value: ToolUse) -> ToolUse:
    """Return when offered tools are called."""
    if value not in get_args(ToolUse):
        raise InvalidArgument(
            f"tool_calls is {value!r}; name one of {', '.join(get_args(ToolUse))}"
        )

    return value


def limit_changes(changes: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return pairs of seconds and a positive factor."""
    if not all(after >= 0 and 0 < factor < math.inf for after, factor in changes):
        raise InvalidArgument(
            f"limit_changes={changes!r}: pairs of seconds after the first call and a positive "
            "factor"
        )

    return tuple(changes)


def header_faults(faults: Sequence[str]) -> tuple[str, ...]:
    """Return the names of header faults."""
    unknown = set(faults) - set(HEADER_FAULTS)
    if unknown:
        raise InvalidArgument(
            f"header_faults: unknown {sorted(unknown)}; choose out of {', '.join(HEADER_FAULTS)}"
        )

    return tuple(faults)


def hidden(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of limits that no header shows."""
    unknown = set(names) - set(KINDS)
    if unknown or isinstance(names, str):
        raise InvalidArgument(
            f"hidden={names!r}: a list out of {', '.join(KINDS)}, such as ['rpm']"
        )

    return tuple(names)


def named_wait(value: NamedWait) -> NamedWait:
    """Return seconds, "wait", or None."""
    if value is None or value == "wait":
        return value

    if isinstance(value, str):
        raise InvalidArgument(
            f"retry_after is {value!r}; it is a number of seconds, 'wait', or None for no header"
        )

    return seconds(value, "retry_after")


def _one_of(names: Sequence[str]) -> Callable[[Any, str], Any]:
    def check(value: object, name: str) -> object:
        if value not in names:
            raise InvalidArgument(f"{name} is {value!r}; name one of {', '.join(names)}")

        return value

    return check


_CHECKS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "style": _one_of(get_args(Style)),
    "neighbour": share,
    "tenant": _one_of(get_args(Tenant)),
    "changes": lambda value, _: limit_changes(value),
    "in_flight": whole,
    "header_faults": lambda value, _: header_faults(value),
    "hidden": lambda value, _: hidden(value),
    "cache_reads": _one_of(get_args(CacheReads)),
    "output_weight": at_least_one,
    "queue": seconds,
}


_ARGUMENTS: Final = {"style": "header_style", "in_flight": "max_in_flight"}
"""The argument that a field of `Rules` is given by, where it has another name."""


def rules(
    variant: str | Iterable[str], *, retry_after: NamedWait | Literal["variant"], **given: Any
) -> Rules:
    """Return the rules of a variant, with what was given in their place.

    :param given: fields of `Rules` by their names; None for the variant's.

    Raises InvalidArgument for a value that cannot be used.
    """
    changed = {
        name: _CHECKS[name](value, _ARGUMENTS.get(name, name))
        for name, value in given.items()
        if value is not None
    }
    if retry_after != "variant":
        changed["retry_after"] = named_wait(retry_after)

    return replace(rules_of(variant), **changed)
