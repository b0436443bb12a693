"""A JSON schema as the TypeScript that OpenAI's models are shown, and bill.

Owns the printing of one schema: types, comments, defaults. Must never know a tool, a message or a token.
Source of every rule: recorded calls with function tools, where a wrong newline shows in `usage`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ratelimit.estimate.plain import items, obj, text

DEEPEST = 24  # levels printed; a schema that refers to itself ends here
_SIMPLE = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}


class Printer:
    """Prints the schema of one function's parameters; its `$ref`s point into that same schema.

    `early` prints as the models of June 2023 (gpt-4-0613, gpt-3.5-turbo-0613) are shown it: no titles, no defaults, comments on
    the first level only, properties that are objects without fields left out, never on one line.
    """

    def __init__(self, root: Mapping[str, object], *, early: bool = False) -> None:
        self._root = root
        self._early = early

    def parameters(self) -> str:
        """Print the root schema as the type of a function's single parameter; empty when it has no properties."""
        if not obj(self._root.get("properties")):
            return ""
        above = [] if self._early else self._comments(self._root)
        return "\n".join([*above, self._object(self._root, 0)])

    def _object(self, schema: Mapping[str, object], depth: int) -> str:
        required = items(schema.get("required"))
        lines: list[str] = []
        for key, value in obj(schema.get("properties")).items():
            prop = self._resolve(obj(value), depth)
            printed = self._type(prop, depth + 1)
            if self._early and printed == "object" and "type" in prop:
                continue
            if not self._early or depth == 0:
                lines.extend(self._comments(prop))
            mark = "" if key in required else "?"
            default = f" // default: {compact(prop['default'])}" if "default" in prop and not self._early else ""
            lines.append(f"{key}{mark}: {printed},{default}")
        if self._early or any("//" in line for line in lines):
            return "\n".join(["{", *lines, "}"])
        return f"{{ {' '.join(lines)[:-1]} }}"

    def _type(self, schema: Mapping[str, object], depth: int) -> str:
        schema = self._resolve(schema, depth)
        if depth > DEEPEST:
            return "any"
        values = items(schema.get("enum"))
        if values:
            return " | ".join(compact(value) for value in values)
        if "const" in schema:
            return compact(schema["const"])
        variants = [obj(variant) for variant in items(schema.get("anyOf")) or items(schema.get("oneOf"))]
        kinds = items(schema.get("type"))
        if not variants and kinds:
            # A list of types is read as a choice between them, each with the whole of the rest of the schema.
            variants = [{**schema, "type": kind} for kind in kinds]
        return self._union(variants, depth) if variants else self._named(text(schema.get("type")), schema, depth)

    def _union(self, variants: list[Mapping[str, object]], depth: int) -> str:
        variants = [self._resolve(variant, depth) for variant in variants]
        printed = [self._type(variant, depth + 1) for variant in variants]
        if "object" in printed:
            return "object"
        notes = ["" if self._early else _note(variant) for variant in variants]
        if any(notes):
            return "".join(f"\n| {one}{note}" for one, note in zip(printed, notes, strict=True)) + "\n"
        return " | ".join(printed)

    def _named(self, kind: str, schema: Mapping[str, object], depth: int) -> str:
        if kind in _SIMPLE:
            return _SIMPLE[kind]
        if kind == "array":
            inner = self._resolve(obj(schema.get("items")), depth)
            printed = self._type(inner, depth + 1) if inner else "any"
            if printed.startswith("{\n"):
                return "\n".join(["Array<", *self._comments(inner), printed, ">"])
            return f"{printed}[]"
        if kind == "object" or "properties" in schema:
            return self._object(schema, depth) if obj(schema.get("properties")) else "object"
        return "any"

    def _comments(self, schema: Mapping[str, object]) -> list[str]:
        title = "" if self._early else text(schema.get("title"))
        description = text(schema.get("description")).strip()
        lines = [f"// {title}"] if title else []
        if title and description:
            lines.append("//")
        return lines + commented(description)

    def _resolve(self, schema: Mapping[str, object], depth: int) -> Mapping[str, object]:
        for _ in range(DEEPEST - min(depth, DEEPEST)):
            reference = schema.get("$ref")
            if not isinstance(reference, str):
                return schema
            target: Mapping[str, object] = self._root
            for step in reference.removeprefix("#").split("/")[1:]:
                target = obj(target.get(step))
            schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
        return schema


def _note(variant: Mapping[str, object]) -> str:
    """Print what follows one variant of a union on its line."""
    description, shape = text(variant.get("description")).strip(), text(variant.get("format"))
    if shape:
        description = f"{description} format: {shape}".strip()
    return f" // {description}" if description else ""


def commented(description: str) -> list[str]:
    """Print a text as comment lines."""
    return [f"// {line.strip()}".rstrip() for line in description.split("\n")] if description else []


def compact(value: object) -> str:
    """Print a JSON value as a default or a literal."""
    return json.dumps(value, ensure_ascii=False, default=str)
