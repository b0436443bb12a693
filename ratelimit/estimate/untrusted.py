"""Reading a request that may be anything: JSON, SDK objects inside JSON, sentinels,
generators, garbage.

Owns the four questions asked of an unknown value: is it an object, a list, a text, a
count? Each is answered with an empty value of the right type when it is not, so the
formulas never check types. Must never know what a field means. A generator is not a
list here: reading it would consume what the call is about to send.
"""

from __future__ import annotations

import binascii
import dataclasses
from binascii import a2b_base64
from collections.abc import Mapping, Sequence

_NOTHING: Mapping[str, object] = {}
# no count in a request means more than this; keeps the arithmetic (and a float 1e300)
# tame
LARGEST = 10**12


def obj(value: object) -> Mapping[str, object]:
    """`value` as a mapping: a dict as it is, a pydantic or dataclass instance dumped,
    anything else empty.
    """
    if isinstance(value, (dict, Mapping)):  # dict first: it is the common case, and the quick one
        return value
    if value is None or isinstance(value, (str, bytes, int, float, list, tuple, type)):
        return _NOTHING
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        dumped = dump(exclude_unset=True, by_alias=True)
        return dumped if isinstance(dumped, Mapping) else _NOTHING
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return _NOTHING


def dumped(value: object) -> object:
    """Stand in for what JSON has no form for: objects of the SDK as mappings, anything
    else as nothing.
    """
    return dict(obj(value)) or None


def items(value: object) -> Sequence[object]:
    """`value` as a sequence: lists and tuples as they are, anything else (texts,
    generators) empty.
    """
    return value if isinstance(value, (list, tuple)) else ()


def text(value: object) -> str:
    """`value` if it is a text, else the empty text."""
    return value if isinstance(value, str) else ""


def count(value: object) -> int | None:
    """`value` as a whole number from 0 to LARGEST, None when it is no number (booleans
    are none).
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not 0 <= value <= LARGEST:  # NaN is neither
        return 0 if value < 0 else (LARGEST if value > LARGEST else None)
    return int(value)


def decoded(base64: str, most: int) -> bytes:
    """The bytes of a base64 text, of its first `most` characters alone; none when it is
    not base64.
    """
    try:
        return a2b_base64(base64[:most] + "==")
    except (binascii.Error, ValueError):
        return b""


def utf8(value: str) -> int:
    """Bytes of `value` in UTF-8; lone surrogates count 3, as the replacement character
    does.
    """
    return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
