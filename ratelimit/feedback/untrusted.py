"""Foreign values, made safe.

Owns the guarded look into a foreign object, the guarded decoding of a body, and the
bounds of a plausible number. Must never know a meaning (which field is a limit, which
is usage), do I/O, read a clock, or raise.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from numbers import Real
from typing import Final

from ratelimit.limits import DAY, LARGEST, MONTH

LARGEST_USAGE: Final = 1e9
"""Tokens. No single call uses more (the largest contexts hold some ten million); a
count above it is a mistake.
"""

_MOCK: Final = ("unittest.mock", "NonCallableMock")
"""The class of mocks, by its name: who uses none need not load the module."""

LONGEST: Final = MONTH + DAY
"""Seconds. A monthly limit can ask for thirty days; a longer wait, reset or period is a
mistake.
"""


def number(value: object) -> float | None:
    """Read a finite number of either sign, from a number or from plain decimal text.

    None for anything else, and for what is beyond `LARGEST`.
    """
    if isinstance(value, str):
        # float() would take Arabic digits and 1_000
        if len(value) > 40 or not value.isascii() or "_" in value:
            return None
        try:
            value = float(value)
        except ValueError:
            return None

    elif isinstance(value, bool):
        return None

    elif not isinstance(value, (int, float)):
        if not isinstance(value, (Real, Decimal)):  # after the common kinds: asking is slow
            return None
        try:
            value = float(value)
        except Exception:  # noqa: BLE001  # a foreign number may raise anything: not known
            return None

    return float(value) if -LARGEST <= value <= LARGEST else None  # NaN compares false


def amount(value: object) -> float | None:
    """Read an amount between 0 and `LARGEST`; None for anything else."""
    found = number(value)
    return found if found is not None and found >= 0 else None


def http_status(value: object) -> int | None:
    """Read an HTTP status from a whole number of any class; None for anything else."""
    found = None if isinstance(value, str) else amount(value)
    return int(found) if found is not None and 100 <= found < 1_000 and found % 1 == 0 else None


def duration(value: object) -> float | None:
    """Read seconds between 0 and `LONGEST` from a plain number; None otherwise."""
    found = amount(value)
    return found if found is not None and found <= LONGEST else None


def text(value: object, most: int = 4_000) -> str:
    """Read text, cut at `most` characters.

    Bytes are taken as UTF-8; anything else is the empty text.
    """
    if isinstance(value, (bytes, bytearray)):
        return bytes(value[: 4 * most]).decode("utf-8", "replace")[:most]
    return value[:most] if isinstance(value, str) else ""


def field(holder: object, name: str) -> object:
    """Look up `name` in a mapping or an object.

    None when it is not there, or when looking fails.
    """
    try:
        if type(holder) is dict:  # the common case, and asking an ABC is slow
            return holder.get(name)
        if _is_mock(type(holder)):  # type: ignore[arg-type]  # classes can be hashed
            fields = vars(holder)
            return fields[name] if name in fields else fields["_mock_children"].get(name)
        if _is_no_attribute(type(holder), name):  # type: ignore[arg-type]  # classes can be hashed
            own: dict[str, object] = vars(holder)
            if name in own:
                return own[name]
            extra: Mapping[str, object] | None = holder.__pydantic_extra__  # type: ignore[attr-defined]
            return None if extra is None else extra.get(name)
        return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
    except Exception:  # noqa: BLE001  # a foreign property may raise anything: not known
        return None


@lru_cache(maxsize=2_048)
def _is_mock(kind: type) -> bool:
    """Tell whether objects of a class are the standard library's mocks.

    A mock makes an attribute of any name that it is asked for, of a class made for it,
    in half a millisecond. Only what a test has set says something.
    """
    return any((base.__module__, base.__name__) == _MOCK for base in kind.__mro__)


@lru_cache(maxsize=2_048)
def _is_no_attribute(kind: type, name: str) -> bool:
    """Tell whether only the fields of a pydantic object may have this name.

    A name that is missing costs its own look-up some microseconds, and of a chunk most
    names are: to read an event of the SDK's Responses takes 20 microseconds so, and 176
    without this.
    """
    bases = kind.__mro__
    model = next((base for base in bases if "__pydantic_extra__" in vars(base)), None)
    looks_up = next((base for base in bases if "__getattr__" in vars(base)), None)
    return model is not None and model is looks_up and not any(name in vars(base) for base in bases)


def is_filled(value: object) -> bool:
    """Tell whether a value is there and holds something.

    One that raises when it is asked does, as an array of several numbers.
    """
    try:
        return bool(value)
    except Exception:  # noqa: BLE001  # a foreign object may raise anything
        return True


def items(holder: object) -> Iterator[object]:
    """Iterate over a list or tuple; over nothing when it is none."""
    return iter(holder) if isinstance(holder, (list, tuple)) else iter(())


def pairs(headers: object) -> list[tuple[object, object]]:
    """Return the name-value pairs of what has `items`, or of an iterable of pairs.

    The standard library's headers have that method and are no mapping. What is no pair
    is left out; of an iterable that fails there are none.
    """
    try:
        named = getattr(headers, "items", None)
        each = named() if callable(named) else headers
        found = list(each) if isinstance(each, Iterable) else []
    except Exception:  # noqa: BLE001  # a foreign iterable may raise anything: not known
        return []

    try:
        return [(name, value) for name, value in found]
    except (TypeError, ValueError):
        return [tuple(pair) for pair in found if isinstance(pair, (tuple, list)) and len(pair) == 2]


def decoded(body: object) -> object:
    """Decode JSON bytes or text.

    None when it is not JSON; what is neither bytes nor text passes unchanged.
    """
    if not isinstance(body, (bytes, bytearray, memoryview, str)):
        return body
    try:
        found: object = json.loads(bytes(body) if isinstance(body, memoryview) else body)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested beyond reason
        return None
    return found
