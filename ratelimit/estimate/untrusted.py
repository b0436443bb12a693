"""Reading a request that may be anything.

Owns the questions asked of an unknown value: is it an object, a list, a text, a count?
Each is answered with an empty value of the right type when it is not, so the formulas
never check types. Must never know what a field means, and must never consume anything:
what can be iterated only once belongs to the call that is about to send it.
"""

from __future__ import annotations

import binascii
import dataclasses
import math
from binascii import a2b_base64
from collections.abc import AsyncIterable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from ratelimit.limits import LARGEST

_NOTHING: Final[Mapping[str, object]] = {}
_TEXTS: Final = (str, bytes, bytearray, memoryview)
_NO_OBJECTS: Final = (*_TEXTS, int, float, list, tuple, type)
_NO_LISTS: Final = (*_TEXTS, Mapping)

MOST_ITEMS: Final = 100_000
"""Items read from a container that is neither a list, a tuple nor a dict.

A `range` or a class of the user's may promise more of them than memory holds.
"""

_BYTES: Final = (bytes, bytearray, memoryview)


def as_mapping(value: object) -> Mapping[str, object]:
    """Return `value` as a mapping, an empty one for what is no object.

    A dict is returned as it is; other mappings, pydantic models and dataclasses as a
    dict of their fields.
    """
    if isinstance(value, dict):
        return value

    if value is None or isinstance(value, _NO_OBJECTS):
        return _NOTHING

    if isinstance(value, Mapping):
        return dict(islice(value.items(), min(len(value), MOST_ITEMS)))

    dump = getattr(value, "model_dump", None)
    if callable(dump):
        fields = dump(exclude_unset=True, by_alias=True)
        return fields if isinstance(fields, dict) else _NOTHING

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)

    return _NOTHING


def as_json(value: object) -> object:
    """Return what stands in JSON for an object: a text, its fields, or null."""
    return text_of_bytes(value) or dict(as_mapping(value)) or None


def as_sequence(value: object) -> Sequence[object]:
    """Return `value` as a sequence, an empty one for what is no list.

    Every collection is read: lists, tuples, queues, sets, the views of a dict. Texts
    and mappings are no lists, and what can be iterated only once stays unread.
    """
    if isinstance(value, (list, tuple)):
        return value

    if value is None or isinstance(value, _NO_LISTS):
        return ()

    if isinstance(value, Collection) and 0 < len(value) <= MOST_ITEMS:
        return list(islice(value, len(value)))

    return ()


def is_unreadable(value: object) -> bool:
    """Whether `value` holds items that cannot be read without consuming them.

    True for bytes, generators, iterators, files, asynchronous streams, and collections
    that are longer than `MOST_ITEMS`.
    """
    if isinstance(value, _BYTES):
        return len(value) > 0

    if value is None or isinstance(value, (list, tuple, *_NO_LISTS)):
        return False

    if isinstance(value, Collection):
        return len(value) > MOST_ITEMS

    return isinstance(value, (Iterable, AsyncIterable)) and not as_mapping(value)


def is_opaque(value: object) -> bool:
    """Whether `value` is an object of an unknown kind, which may stand for anything.

    The SDK's marks for "not given" are false, so they are none. Bytes are one.
    """
    if isinstance(value, _BYTES):
        return len(value) > 0

    if value is None or isinstance(value, (*_NO_OBJECTS, Collection)):
        return False

    return not as_mapping(value) and bool(value)


def as_str(value: object) -> str:
    """Return `value` if it is a text, or bytes that are one, else the empty text."""
    if isinstance(value, str):
        return value

    return "" if value is None else text_of_bytes(value)


def text_of_bytes(value: object) -> str:
    """Return the text of bytes, the empty text for anything else.

    No JSON holds bytes, so who calls with them decodes them on the way.
    """
    return bytes(value).decode(errors="replace") if isinstance(value, _BYTES) else ""


def as_count(value: object) -> int | None:
    """Return `value` as a whole number from 0 to `LARGEST`, None for no number.

    Booleans are no numbers, nor is NaN.
    """
    if value is None or isinstance(value, bool) or not isinstance(value, (int, float)):
        return None

    if isinstance(value, float) and math.isnan(value):
        return None

    return int(min(max(value, 0), LARGEST))


def texts_in(value: object, most: int = MOST_ITEMS) -> list[str]:
    """Collect the texts inside a value, without recursion.

    Objects of the SDK show their content.

    :param most: how many values are looked at.
    :raises ValueError: `value` holds more of them, or holds itself.
    """
    texts: list[str] = []
    waiting = [value]
    looked_at = 0
    while waiting:
        inner = waiting.pop()
        looked_at += 1
        if looked_at + len(waiting) > most:
            raise ValueError(f"more than {most:,} values")

        if isinstance(inner, str):
            texts.append(inner)
        elif isinstance(inner, dict):
            waiting.extend(reversed(inner.values()))
        elif isinstance(inner, (list, tuple)):
            waiting.extend(reversed(inner))
        else:
            content = getattr(inner, "content", None)
            if isinstance(content, (str, list)):
                waiting.append(content)

    return texts


def sent_body(body: Mapping[str, object]) -> Mapping[str, object]:
    """Return the body that the SDK sends when it is called with the fields of `body`.

    It merges `extra_body` into the body, one level deep. `extra_headers`, `extra_query`
    and `timeout` are left where they are: no formula reads them.
    """
    if "extra_body" not in body:
        return body

    merged = {**body, **as_mapping(body["extra_body"])}
    merged.pop("extra_body", None)
    return merged


def decode_base64(base64: str, most: int) -> bytes:
    """Return the bytes of the first `most` characters of a base64 text.

    There are none when it is not base64.
    """
    try:
        return a2b_base64(base64[:most] + "==")
    except (binascii.Error, ValueError):
        return b""


def utf8_size(value: str) -> int:
    """Return the bytes of `value` in UTF-8.

    A lone surrogate counts 3, as the replacement character does.
    """
    return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
