"""A JSON schema as the TypeScript that OpenAI's models are shown, and bill.

Owns the printing of one schema: types, comments, defaults. Must never know a tool, a
message or a token. Source of every rule: recorded calls with function tools, where a
wrong newline shows in `usage`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ratelimit.estimate.untrusted import items, obj, text

DEEPEST = 24  # levels printed
# types printed for one function: a few references to references can ask for more than
# the universe holds
MOST = 5_000
_SIMPLE = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "null": "null",
}


class Printer:
    """Prints the schema of one function's parameters; its `$ref`s point into that same
    schema.

    `early` prints as the models of June 2023 (gpt-4-0613, gpt-3.5-turbo-0613) are shown
    it: no titles, no defaults, comments on the first level only, properties that are
    objects without fields left out, never on one line.
    """

    def __init__(self, root: Mapping[str, object], *, early: bool = False) -> None:
        self._root = root
        self._early = early
        # the references being printed: a schema that refers to itself ends there
        self._open: list[str] = []
        self._left = MOST

    def parameters(self) -> str:
        """Print the root schema as the type of a function's single parameter; empty
        when it has no properties.
        """
        if not obj(self._root.get("properties")):
            return ""
        above = [] if self._early else self._comments(self._root)
        return "\n".join([*above, self._object(self._root, 0)])

    def _object(self, schema: Mapping[str, object], depth: int) -> str:
        required = items(schema.get("required"))
        lines: list[str] = []
        for key, value in obj(schema.get("properties")).items():
            printed = self._type(obj(value), depth + 1)
            prop = self._resolve(obj(value))
            if self._early and printed == "object" and "type" in prop:
                continue
            if not self._early or depth == 0:
                lines.extend(self._comments(prop))
            mark = "" if key in required else "?"
            default = (
                f" // default: {compact(prop['default'])}"
                if "default" in prop and not self._early
                else ""
            )
            lines.append(f"{key}{mark}: {printed},{default}")
        if self._early or any("//" in line for line in lines):
            return "\n".join(["{", *lines, "}"])
        return f"{{ {' '.join(lines)[:-1]} }}"

    def _type(self, schema: Mapping[str, object], depth: int) -> str:
        self._left -= 1
        reference = text(schema.get("$ref"))
        if depth > DEEPEST or self._left < 0 or reference in self._open:
            return "any"
        if not reference:
            return self._plain_type(schema, depth)
        self._open.append(reference)
        printed = self._type(self._resolve(schema, steps=1), depth + 1)
        self._open.pop()
        return printed

    def _plain_type(self, schema: Mapping[str, object], depth: int) -> str:
        values = items(schema.get("enum"))
        if values:
            return " | ".join(compact(value) for value in values)
        if "const" in schema:
            return compact(schema["const"])
        variants = [
            obj(variant) for variant in items(schema.get("anyOf")) or items(schema.get("oneOf"))
        ]
        kinds = items(schema.get("type"))
        if not variants and kinds:
            # A list of types is read as a choice between them, each with the whole of
            # the rest of the schema.
            variants = [{**schema, "type": kind} for kind in kinds]
        return (
            self._union(variants, depth)
            if variants
            else self._named(text(schema.get("type")), schema, depth)
        )

    def _union(self, variants: list[Mapping[str, object]], depth: int) -> str:
        printed = [self._type(variant, depth + 1) for variant in variants]
        if "object" in printed:
            return "object"
        notes = ["" if self._early else _note(self._resolve(variant)) for variant in variants]
        if any(notes):
            return (
                "".join(f"\n| {one}{note}" for one, note in zip(printed, notes, strict=True)) + "\n"
            )
        return " | ".join(printed)

    def _named(self, kind: str, schema: Mapping[str, object], depth: int) -> str:
        if kind in _SIMPLE:
            return _SIMPLE[kind]
        if kind == "array":
            inner = obj(schema.get("items"))
            printed = self._type(inner, depth + 1) if inner else "any"
            if printed.startswith("{\n"):
                return "\n".join(["Array<", *self._comments(self._resolve(inner)), printed, ">"])
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

    def _resolve(self, schema: Mapping[str, object], steps: int = DEEPEST) -> Mapping[str, object]:
        """Follow `$ref`, at most so many steps; what stands beside a reference adds to
        what it refers to.
        """
        for _ in range(steps):
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
    return (
        [f"// {line.strip()}".rstrip() for line in description.split("\n")] if description else []
    )


def compact(value: object) -> str:
    """Print a JSON value as a default or a literal."""
    return json.dumps(value, ensure_ascii=False, default=str)
