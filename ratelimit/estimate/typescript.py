"""A JSON schema as the TypeScript that OpenAI's models are shown.

Owns the printing of one schema: types, comments, defaults. Must never know a tool, a
message or a token. Source of every rule: recorded calls with function tools, where a
wrong newline shows in `usage`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from ratelimit.estimate.untrusted import as_mapping, as_sequence, as_str

DEEPEST: Final = 24
"""Levels that are printed."""

MOST: Final = 5_000
"""Types that are printed for one function.

A few references to references to references can stand for billions of them.
"""

_SIMPLE: Final = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "null": "null",
}


class Printer:
    """Prints the schema of one function's parameters.

    :param root: the schema, into which its own `$ref`s point.
    :param early: print as the models of June 2023 (gpt-4-0613, gpt-3.5-turbo-0613) are
        shown it: no titles, no defaults, comments on the first level only, properties
        that are objects without fields left out, never on one line.
    """

    def __init__(self, root: Mapping[str, object], *, early: bool = False) -> None:
        self._root = root
        self._early = early
        # A schema that refers to a reference which is still being printed ends there.
        self._open: list[str] = []
        self._left = MOST

    def parameters(self) -> str:
        """Print the root schema as the type of a function's single parameter.

        Empty when it has no properties.
        """
        if not as_mapping(self._root.get("properties")):
            return ""

        above = [] if self._early else self._comments(self._root)
        return "\n".join([*above, self._object(self._root, 0)])

    def _object(self, schema: Mapping[str, object], depth: int) -> str:
        required = as_sequence(schema.get("required"))
        lines: list[str] = []
        for key, value in as_mapping(schema.get("properties")).items():
            printed = self._type(as_mapping(value), depth + 1)
            prop = self._resolve(as_mapping(value))
            if self._early and printed == "object" and "type" in prop:
                continue

            if not self._early or depth == 0:
                lines.extend(self._comments(prop))

            default = ""
            if "default" in prop and not self._early:
                default = f" // default: {literal(prop['default'])}"

            lines.append(f"{key}{'' if key in required else '?'}: {printed},{default}")

        if self._early or any("//" in line for line in lines):
            return "\n".join(["{", *lines, "}"])

        return f"{{ {' '.join(lines)[:-1]} }}"

    def _type(self, schema: Mapping[str, object], depth: int) -> str:
        self._left -= 1
        reference = as_str(schema.get("$ref"))
        if depth > DEEPEST or self._left < 0 or reference in self._open:
            return "any"

        if not reference:
            return self._plain_type(schema, depth)

        self._open.append(reference)
        printed = self._type(self._resolve(schema, steps=1), depth + 1)
        self._open.pop()
        return printed

    def _plain_type(self, schema: Mapping[str, object], depth: int) -> str:
        values = as_sequence(schema.get("enum"))
        if values:
            return " | ".join(literal(value) for value in values)

        if "const" in schema:
            return literal(schema["const"])

        listed = as_sequence(schema.get("anyOf")) or as_sequence(schema.get("oneOf"))
        variants = [as_mapping(variant) for variant in listed]
        if not variants:
            # A list of types is read as a choice between them, each with the whole of
            # the rest of the schema.
            kinds = as_sequence(schema.get("type"))
            variants = [{**schema, "type": kind} for kind in kinds]

        if variants:
            return self._union(variants, depth)

        return self._named_type(as_str(schema.get("type")), schema, depth)

    def _union(self, variants: list[Mapping[str, object]], depth: int) -> str:
        printed = [self._type(variant, depth + 1) for variant in variants]
        if "object" in printed:
            return "object"

        notes = ["" if self._early else _note(self._resolve(variant)) for variant in variants]
        if not any(notes):
            return " | ".join(printed)

        lines = [f"\n| {variant}{note}" for variant, note in zip(printed, notes, strict=True)]
        return "".join(lines) + "\n"

    def _named_type(self, kind: str, schema: Mapping[str, object], depth: int) -> str:
        if kind in _SIMPLE:
            return _SIMPLE[kind]

        if kind == "array":
            return self._array(as_mapping(schema.get("items")), depth)

        if kind == "object" or "properties" in schema:
            fields = as_mapping(schema.get("properties"))
            return self._object(schema, depth) if fields else "object"

        return "any"

    def _array(self, items: Mapping[str, object], depth: int) -> str:
        printed = self._type(items, depth + 1) if items else "any"
        if printed.startswith("{\n"):
            above = [] if self._early else self._comments(self._resolve(items))
            return "\n".join(["Array<", *above, printed, ">"])

        return f"{printed}[]"

    def _comments(self, schema: Mapping[str, object]) -> list[str]:
        title = "" if self._early else as_str(schema.get("title"))
        description = as_str(schema.get("description")).strip()
        lines = [f"// {title}"] if title else []
        if title and description:
            lines.append("//")

        return lines + comment_lines(description)

    def _resolve(self, schema: Mapping[str, object], steps: int = DEEPEST) -> Mapping[str, object]:
        """Follow `$ref`, for at most `steps` steps.

        What stands beside a reference adds to what it refers to.
        """
        for _ in range(steps):
            reference = schema.get("$ref")
            if not isinstance(reference, str):
                return schema

            target: Mapping[str, object] = self._root
            for step in reference.removeprefix("#").split("/")[1:]:
                target = as_mapping(target.get(step))

            beside = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**target, **beside}

        return schema


def _note(variant: Mapping[str, object]) -> str:
    """Print what follows one variant of a union on its line."""
    description = as_str(variant.get("description")).strip()
    shape = as_str(variant.get("format"))
    if shape:
        description = f"{description} format: {shape}".strip()

    return f" // {description}" if description else ""


def comment_lines(description: str) -> list[str]:
    """Print a text as comment lines."""
    if not description:
        return []

    return [f"// {line.strip()}".rstrip() for line in description.split("\n")]


def literal(value: object) -> str:
    """Print a JSON value as a default or a literal."""
    return json.dumps(value, ensure_ascii=False, default=str)
