"""Foreign values, made safe: what the other feedback files use to touch anything a
server or a user's object holds.

Owns: the one guarded look into a foreign object, the one guarded decoding of a body,
and what counts as a sane number. Must never come in: any meaning (which field is a
limit, which is usage), I/O, clocks, exceptions to the caller.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

MOST = 1e15
"""No limit, level or token count is larger; what is, is a lie or a mistake and counts
as unknown.
"""


def number(value: object) -> float | None:
    """Read a finite number of either sign from a number or from plain decimal text;
    None for anything else.
    """
    if isinstance(value, str):
        # float() would take Arabic digits and 1_000
        if len(value) > 40 or not value.isascii() or "_" in value:
            return None
        try:
            value = float(value)
        except ValueError:
            return None
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -MOST <= value <= MOST else None  # NaN compares false


def amount(value: object) -> float | None:
    """Read an amount, 0 <= amount <= 1e15, from a number or from plain decimal text;
    None for anything else.
    """
    if value.__class__ is str and len(value) < 16 and value.isdecimal() and value.isascii():
        return float(value)  # nearly always
    found = number(value)
    return found if found is not None and found >= 0 else None


def text(value: object, most: int = 4_000) -> str:
    """Read text, cut at `most` characters; bytes are taken as UTF-8, anything else is
    the empty text.
    """
    if value.__class__ is str:
        return value[:most]
    if value.__class__ is bytes and len(value) <= most:  # every header's value, as it came
        return value.decode("utf-8", "replace")
    if isinstance(value, (bytes, bytearray)):
        return bytes(value[: 4 * most]).decode("utf-8", "replace")[:most]
    return value[:most] if isinstance(value, str) else ""


def field(holder: object, name: str) -> object:
    """Look up `name` in a mapping or an object; None when it is not there, or when
    looking fails.
    """
    # nearly always; the check against Mapping costs more than all the rest
    if holder.__class__ is dict:
        return holder.get(name)
    try:
        if isinstance(holder, Mapping):
            return holder.get(name)
        return getattr(holder, name, None)
    except Exception:  # noqa: BLE001 -- a property of a foreign object may raise anything, and "not known" is our answer to it
        return None


def decoded(body: object) -> object:
    """Decode JSON bytes or text; anything else, and anything that is not JSON, comes
    back as None or as it was.

    Already decoded values (mappings, lists, objects) pass through unchanged.
    """
    if not isinstance(body, (bytes, bytearray, memoryview, str)):
        return body
    try:
        found: object = json.loads(bytes(body) if isinstance(body, memoryview) else body)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested beyond reason
        return None
    return found


def finite(value: float) -> bool:
    """Tell whether `value` is a sane number of seconds: finite, not negative, at most
    ten years.
    """
    return math.isfinite(value) and 0 <= value <= 315_360_000
