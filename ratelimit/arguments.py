"""What users give a limiter, checked; what cannot be used is answered in a sentence.

Owns those sentences. Must never use an argument.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, ParamSpec, TypeVar

from ratelimit.errors import InvalidArgument
from ratelimit.limits import LARGEST, Limits, amount_of, amounts_of

P = ParamSpec("P")
R = TypeVar("R")

OPTIONS: Final = ("tokens", "requests", "cost", "timeout", "priority", "endpoint", "tenant")
"""What `reserve` and the three `acquire` take besides the fields of a body."""

ALIKE_OPTION: Final = 0.82
"""The similarity (`difflib`, 0 to 1) that makes a name a misspelled option: lower than
for a dimension, which may have a name of the user's own.
"""


@functools.lru_cache(1_000)
def similar(name: str, options: tuple[str, ...]) -> str | None:
    """Return the option that ``name`` probably stands for, or None.

    Cached, because every field of every request body is looked up.
    """
    words = name.lower().split("_")
    parts = words if len(words) > 1 else []  # max_tokens is no misspelled tokens
    plain = {option.replace("_", ""): option for option in options if option not in parts}
    letters = name.lower().replace("_", "")
    for found in difflib.get_close_matches(letters, plain, 1, ALIKE_OPTION):
        return plain[found]
    swapped = [option for option in plain if sorted(option) == sorted(letters)]
    return plain[swapped[0]] if swapped else None


def spelled(example: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that wrong arguments are answered in a sentence.

    :param example: a call that works.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters.values()
        keywords = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
        most = sum(one.kind is not one.KEYWORD_ONLY for one in parameters)

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            if len(args) > most:
                raise InvalidArgument(
                    f"{args[most]!r} is given without a name; write it with one: {example}"
                )
            for name in kwargs.keys() - set(keywords):
                raise InvalidArgument(unknown(name, keywords, example))
            return function(*args, **kwargs)

        return checked

    return decorate


def unknown(name: str, options: Iterable[str], example: str) -> str:
    """Return the sentence about an option that does not exist."""
    meant = similar(name, tuple(options))
    if meant is not None:
        return f"there is no option {name}=; did you mean {meant}=?"
    return f"there is no option {name}=; there are {', '.join(options)}, as in {example}"


def limits_by_model(own: Limits, limits: Limits | Mapping[str, Limits] | None) -> dict[str, Limits]:
    """Return all limits by pattern of model names."""
    if limits is None:
        return {"*": own}
    if isinstance(limits, Limits):
        return {"*": Limits(*own, *limits, concurrency=own.concurrency or limits.concurrency)}
    if not isinstance(limits, Mapping) or not limits or not all(map(_is_entry, limits.items())):
        raise InvalidArgument(
            f"limits= is a Limits or a mapping from model names to Limits, not {limits!r}"
        )
    if len(own) or own.concurrency:
        raise InvalidArgument(
            'with limits= by model, put the other limits into it as well, under "*" or each model'
        )
    return dict(limits)


def _is_entry(entry: tuple[object, object]) -> bool:
    return isinstance(entry[0], str) and isinstance(entry[1], Limits)


def body_of(request: object, fields: dict[str, Any]) -> Mapping[str, Any]:
    """Return the request body, given whole, as fields, or both."""
    if request is None:
        return fields
    if not isinstance(request, (dict, Mapping)):  # dict first: asking an abstract class is slow
        raise InvalidArgument(
            "a request is a mapping with the body's fields (model=, messages=, ...), not "
            f"{type(request).__name__}"
        )
    return {**request, **fields} if fields else request


def cost_by_hand(tokens: object, requests: object, cost: object) -> dict[str, float]:
    """Return the cost of a call that is described by amounts instead of a body.

    :param tokens: tokens, or None for none.
    :param requests: requests; 1 when None.
    :param cost: a mapping with further dimensions, or None; ``requests`` counts before
        its own.
    """
    paid: dict[str, float] = {"requests": 1}
    if tokens is not None:
        paid["tokens"] = amount_of(tokens, "tokens=")

    if cost is not None:
        paid.update(amounts_of(cost, "the cost"))

    if requests is not None:
        paid["requests"] = amount_of(requests, "requests=")

    return paid


def check_choice(option: str, choice: object, choices: tuple[str, ...]) -> None:
    """Raise `InvalidArgument` for what is none of the choices."""
    if choice not in choices:
        raise InvalidArgument(f"{option} is one of {', '.join(choices)}, not {choice!r}")


def check_share(burst: object) -> None:
    """Raise `InvalidArgument` for a burst that is no share."""
    if not isinstance(burst, (int, float)) or isinstance(burst, bool) or not 0 < burst <= 1:
        raise InvalidArgument(
            "burst_share= is the share of each limit that may go at once, above 0 and at most "
            f"1, not {burst!r}"
        )


def check_shares(shares: object) -> dict[str, float] | None:
    """Return the shares of tenants; raise if they cannot be."""
    if shares is None:
        return None
    amounts = amounts_of(shares, "the share")
    for name, share in amounts.items():
        if not share:
            raise InvalidArgument(
                f"shares= gives each tenant a share above 0, and {name!r} none: leave it out, and "
                "it has a share of 1"
            )
    return amounts


def check_level(level: float) -> float:
    """Return how full the buckets are at the start; raise if it cannot be."""
    if amount_of(level, "initial_level=, how full the buckets are at the start,") > 1:
        raise InvalidArgument(
            "initial_level= is how full the buckets are at the start, between 0 and 1, not "
            f"{level!r}"
        )
    return level


def check_output(output: object) -> None:
    """Raise `InvalidArgument` for an expected output that cannot be."""
    named = output is None or output in ("max", "learned")
    whole = isinstance(output, int) and not isinstance(output, bool) and 0 <= output <= LARGEST
    if not named and not whole:
        raise InvalidArgument(
            f'output= is "max", "learned" or a whole number of tokens, not {output!r}'
        )


def check_clock(clock: object) -> None:
    """Raise `InvalidArgument` for what is no clock."""
    if clock is not None and not callable(getattr(clock, "now", None)):
        raise InvalidArgument(
            "clock= is an object with now() and park(), such as those of ratelimit.testing, not "
            f"{clock!r}"
        )
