"""Values that satisfy a JSON schema, for tool calls and structured answers.

Owns the construction of such a value. Must never call a model, draw by chance or check
a value: the same schema gives the same value.

Understood are type, enum, const, properties, required, items, prefixItems, anyOf,
oneOf, allOf, local $ref, the bounds of numbers, strings, arrays and objects,
multipleOf, uniqueItems, pattern and format. Conditions (if, not, dependentRequired) are
not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ratelimit.testing.patterns import matching

__all__ = ["example"]

Schema = Mapping[str, Any]

DEPTH: Final = 4
"""Levels of nesting from which on optional parts are left out."""
DEEPEST: Final = 40
"""Levels of nesting at which a schema that requires itself is given up."""
MOST_VALUES: Final = 10_000
"""Values inside one example after which objects and arrays stay empty."""
LONGEST: Final = 100_000
"""Characters of a string, whatever its least length."""

_FORMATS: Final = {
    "date": "2026-01-{:02d}",
    "date-time": "2026-01-{:02d}T12:00:00Z",
    "time": "12:{:02d}:00Z",
    "duration": "P{}D",
    "email": "user{}@example.com",
    "idn-email": "user{}@example.com",
    "hostname": "host{}.example.com",
    "idn-hostname": "host{}.example.com",
    "ipv4": "192.0.2.{}",
    "ipv6": "2001:db8::{}",
    "uri": "https://example.com/{}",
    "uri-reference": "https://example.com/{}",
    "iri": "https://example.com/{}",
    "uuid": "00000000-0000-4000-8000-{:012d}",
}
_KEYWORDS: Final = {
    "properties": "object",
    "required": "object",
    "additionalProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "minItems": "array",
    "minimum": "number",
    "maximum": "number",
    "exclusiveMinimum": "number",
    "exclusiveMaximum": "number",
    "multipleOf": "number",
}
"""The type that a keyword implies where none is named; any other implies a string."""


def example(schema: object) -> Any:
    """Return a JSON value that satisfies `schema`.

    What cannot be understood is taken for a string, so that a value always comes out.
    """
    return _Builder(schema).value(schema)


class _Builder:
    """Builds the value of one schema; local references are looked up in it."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._values = 0

    def value(self, given: object, depth: int = 0, index: int = 1) -> Any:
        """Return a value of `given`.

        :param index: the place of an array's item, from 1 on.
        """
        self._values += 1
        schema = self._resolve(given, depth)
        if "const" in schema:
            return schema["const"]

        choices = schema.get("enum")
        if isinstance(choices, Sequence) and choices:
            return choices[(index - 1) % len(choices)]

        kind = self._kind(schema, depth)
        if kind not in {"object", "array"}:
            return _scalar(kind, schema, index)

        if depth >= DEEPEST or self._values >= MOST_VALUES:
            return {} if kind == "object" else []

        return (
            self._object(schema, depth, index) if kind == "object" else self._array(schema, depth)
        )

    def _resolve(self, given: object, depth: int) -> dict[str, Any]:
        """Return the schema with its references, allOf and alternatives merged in."""
        schema = dict(given) if isinstance(given, Mapping) else {}
        for _ in range(DEEPEST):
            if "$ref" in schema:
                target = self._target(schema.pop("$ref"))
                schema = _merged(target, schema)
                continue

            name = next((each for each in ("allOf", "anyOf", "oneOf") if each in schema), "")
            parts = schema.pop(name, None)
            if not name:
                break

            if not isinstance(parts, list) or not parts:
                continue

            for part in parts if name == "allOf" else [self._alternative(parts, depth)]:
                schema = _merged(part, schema)

        return schema

    def _alternative(self, parts: Sequence[object], depth: int) -> object:
        """Choose the first alternative, or a plain one where nesting gets deep."""
        if depth < DEPTH:
            return next((part for part in parts if _nesting(part) > 0), parts[0])

        return min(parts, key=_nesting)

    def _target(self, reference: object) -> object:
        """Return what a local reference such as "#/$defs/Node" points to."""
        found: Any = self._root
        for part in str(reference).removeprefix("#").split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if not name:
                continue

            if isinstance(found, Mapping):
                found = found.get(name)
            elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
                found = found[int(name)]
            else:
                return {}

        return found

    def _kind(self, schema: Schema, depth: int) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            if depth >= DEPTH and "null" in kind:
                return "null"

            kind = next((each for each in kind if each != "null"), "null")

        if isinstance(kind, str):
            return kind

        return next((implied for name, implied in _KEYWORDS.items() if name in schema), "string")

    def _object(self, schema: Schema, depth: int, index: int) -> dict[str, Any]:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        required = [name for name in _list(schema, "required") if isinstance(name, str)]
        names = (
            list(properties) if depth < DEPTH else [each for each in properties if each in required]
        )
        most = _bound(schema, "maxProperties", math.inf)
        if len(names) > most:
            names = sorted(names, key=lambda name: name not in required)[: int(most)]

        rest = schema.get("additionalProperties", {})
        missing = [name for name in required if name not in properties]
        short = _count(schema, "minProperties") - len(names) - len(missing)
        missing += [f"key{number}" for number in range(1, short + 1)]
        found = {name: self.value(properties[name], depth + 1, index) for name in names}
        return found | {name: self.value(rest, depth + 1, index) for name in missing}

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        first = _list(schema, "prefixItems")
        items = schema.get("items", {})
        least = _count(schema, "minItems")
        wanted = max(least, len(first), 1 if depth < DEPTH and items is not False else 0)
        count = int(min(wanted, _bound(schema, "maxItems", wanted)))
        return [
            self.value(first[place] if place < len(first) else items, depth + 1, place + 1)
            for place in range(count)
        ]


def _nesting(part: object) -> int:
    """Return 0 for null, 1 for a value without parts and 2 for any other schema."""
    schema = part if isinstance(part, Mapping) else {}
    if schema.get("type") == "null":
        return 0

    nested = {"$ref", "anyOf", "oneOf", "allOf", "properties", "items"} & schema.keys()
    return 2 if nested or schema.get("type") in ("object", "array") else 1


def _list(schema: Schema, name: str) -> list[Any]:
    given = schema.get(name)
    return given if isinstance(given, list) else []


def _bound(schema: Schema, name: str, default: float) -> float:
    """Return a bound that a keyword sets; the default where it is no number."""
    given = schema.get(name)
    number = isinstance(given, int | float) and not isinstance(given, bool)
    return given if number and math.isfinite(given) else default  # type: ignore[arg-type, return-value]


def _count(schema: Schema, name: str) -> int:
    """Return a least number of parts, within what an example may have."""
    return min(int(_bound(schema, name, 0)), MOST_VALUES)


def _merged(part: object, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return `part` with the keywords of `schema` on top; objects are joined."""
    merged = dict(part) if isinstance(part, Mapping) else {}
    for name, given in schema.items():
        known = merged.get(name)
        if name == "properties" and isinstance(known, Mapping) and isinstance(given, Mapping):
            merged[name] = {**known, **given}
        elif name == "required" and isinstance(known, list) and isinstance(given, list):
            merged[name] = list(dict.fromkeys([*known, *given]))
        else:
            merged[name] = given

    return merged


def _scalar(kind: str, schema: Schema, index: int) -> str | float | None:
    match kind:
        case "integer" | "number":
            return _number(schema, index, whole=kind == "integer")
        case "boolean":
            return index % 2 == 1
        case "null":
            return None
        case _:
            return _string(schema, index)


def _number(schema: Schema, index: int, *, whole: bool) -> float:
    """Return the `index`-th number within the bounds, as small as they allow."""
    step = _bound(schema, "multipleOf", 0)
    low, above = (_bound(schema, name, -math.inf) for name in ("minimum", "exclusiveMinimum"))
    high, below = (_bound(schema, name, math.inf) for name in ("maximum", "exclusiveMaximum"))
    if whole or step > 0:
        step = step if step > 0 else 1
        first: float = math.ceil(low / step) if low > -math.inf else -math.inf
        if above > -math.inf:
            first = max(first, math.floor(above / step) + 1)

        last = math.floor(high / step) if high < math.inf else math.inf
        if below < math.inf:
            last = min(last, math.ceil(below / step) - 1)

        start = first if first > -math.inf else min(1, last)
        multiple = min(max(1, start) if last >= 1 else start, last) + index - 1
        found = max(start, min(multiple, last)) * step
        return int(found) if whole or found == int(found) else found

    low, high = max(low, above), min(high, below)
    if low > -math.inf and high < math.inf:
        return float(low + (high - low) * index / (index + 1))

    if low > -math.inf:
        return float(low + index / 2)

    return float(high - index / 2) if high < math.inf else index / 2


def _string(schema: Schema, index: int) -> str:
    least = min(int(_bound(schema, "minLength", 0)), LONGEST)
    most = int(_bound(schema, "maxLength", LONGEST))
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        found = matching(pattern, least, most)
        if found is not None:
            return found

    form = _FORMATS.get(str(schema.get("format", "")))
    if form is not None:
        return form.format(index)

    text = f"text {index}" if index > 1 else "text"
    return text.ljust(least, ".")[:most]
