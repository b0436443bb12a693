"""As how many tokens a limit counts each kind of token.

Owns the kinds, what each dimension counts of them where nothing is given, and the
checks of `weights=`. Must never know a limit's amount or a call.

    dimension       input   cached   output
    tokens              1        1        1
    input_tokens        1        1        0
    output_tokens       0        0        1

`input` is the prompt less what came from the cache, `cached` is that. Anthropic counts
no cache reads: `Limit("input_tokens", 40_000, weights={"cached": 0})`. Bedrock counts
the answers of newer models five times: `Limit("tokens", 200_000, weights={"output":
5})`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ratelimit.errors import InvalidArgument, shown

KINDS: Final = ("input", "cached", "output")

COUNTED: Final[Mapping[str, tuple[float, float, float]]] = {
    "tokens": (1, 1, 1),
    "input_tokens": (1, 1, 0),
    "output_tokens": (0, 0, 1),
}
"""The weights of `KINDS` by dimension, where none are given."""

HEAVIEST: Final = 1_000.0
"""The largest weight; what counts for more is a mistake."""

Weights = tuple[tuple[str, float], ...]
"""What was given: pairs of a kind and its weight, in the order of `KINDS`."""


def read_weights(name: str, given: object) -> Weights:
    """Check what was given as `weights=` of a limit, a mapping or pairs; return it.

    :param name: the limit's dimension.

    Raises InvalidArgument for what cannot be a weight.
    """
    if given is None:
        return ()

    if isinstance(given, tuple) and all(isinstance(one, tuple) and len(one) == 2 for one in given):
        given = dict(given)  # another limit's

    if not isinstance(given, Mapping):
        raise InvalidArgument(
            f'weights= is a mapping such as {{"cached": 0}} or {{"output": 5}}, not {shown(given)}'
        )

    if given and name not in COUNTED:
        raise InvalidArgument(
            f"a limit of {name} has no weights: they are of tokens; give them with "
            f"{', '.join(COUNTED)}"
        )

    for kind, weight in given.items():
        if kind not in KINDS:
            raise InvalidArgument(
                f"weights= of {name}: there is no kind {shown(kind)}; name {', '.join(KINDS)}"
            )
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise InvalidArgument(
                f"weights= of {name}: the weight of {kind} must be a number, not {shown(weight)}"
            )
        if not 0 <= weight <= HEAVIEST:  # False for NaN as well
            raise InvalidArgument(
                f"weights= of {name}: the weight of {kind} must be between 0 and {HEAVIEST:g}, "
                f"not {shown(weight)}"
            )
    found = tuple((kind, float(given[kind])) for kind in KINDS if kind in given)
    if found and not any(weights_of(name, found)):
        raise InvalidArgument(
            f"weights= of {name} leave nothing to count; leave the limit out instead"
        )
    return found


def weights_of(name: str, given: Weights) -> tuple[float, float, float]:
    """Return the weights of `KINDS` for a dimension, by what was given for it."""
    own = dict(given)
    found = [own.get(kind, each) for kind, each in zip(KINDS, COUNTED[name], strict=True)]
    return found[0], found[1], found[2]


def check_alike(limits: Iterable[tuple[str, Weights]]) -> None:
    """Refuse limits of one dimension that weigh differently.

    A call has one cost in each dimension.
    """
    seen: dict[str, Weights] = {}
    for name, weights in limits:
        if seen.setdefault(name, weights) != weights:
            raise InvalidArgument(
                f"the limits of {name} have different weights= ({dict(seen[name])} and "
                f"{dict(weights)}); give all of them the same, or write one as another of "
                f"{', '.join(COUNTED)} with the weights that make it so"
            )
