"""Response formats: what a JSON schema for the answer adds to the prompt.

Owns the text that a format becomes. Must never know a message or a limiter. Source:
recorded calls with `json_schema` formats: the schema is printed as it was sent, escaped
to ASCII, without the keys in `_UNPRINTED`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from ratelimit.estimate.untrusted import as_json, as_mapping, as_str

_UNPRINTED: Final = frozenset(
    {
        "$schema",
        "additionalProperties",
        "required",
        "default",
        "format",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "uniqueItems",
    }
)
_NAMED: Final = frozenset({"properties", "$defs", "definitions"})
"""Keywords that hold a mapping from names, not from keywords."""

_DEEPEST: Final = 40
"""Levels of a schema that are printed."""

LONGEST_KEPT: Final = 100_000
"""Characters of a schema, up to which its print is kept."""


def chat_format(body: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return the `json_schema` of a chat body's `response_format`, None without one."""
    wanted = body.get("response_format")
    if wanted is None:
        return None

    if isinstance(wanted, type):
        return _format_of_class(wanted)

    answer = as_mapping(wanted)
    is_schema = as_str(answer.get("type")) == "json_schema"
    return as_mapping(answer.get("json_schema")) if is_schema else None


def responses_format(body: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return the `json_schema` format of a Responses body, None without one."""
    wanted = body.get("text_format")
    if isinstance(wanted, type):
        return _format_of_class(wanted)

    answer = as_mapping(as_mapping(body.get("text")).get("format"))
    return answer if as_str(answer.get("type")) == "json_schema" else None


def format_text(answer: Mapping[str, object]) -> str:
    """Print a format (name, description, schema) as the models are shown it."""
    schema = json.dumps(answer.get("schema"), default=as_json, skipkeys=True)
    print_ = _schema_text if len(schema) <= LONGEST_KEPT else _schema_text.__wrapped__
    description = as_str(answer.get("description"))
    comment = f"// {description}\n" if description else ""
    return f"# Response Formats\n\n## {as_str(answer.get('name'))}\n\n{comment}{print_(schema)}"


@lru_cache(maxsize=64)
def _schema_text(schema: str) -> str:
    """Print a schema given as a JSON text, which is a key that cannot change."""
    return json.dumps(_printed(json.loads(schema), 0), separators=(",", ":"))


def _printed(schema: object, depth: int, *, named: bool = False) -> object:
    if depth > _DEEPEST:
        return {}

    if isinstance(schema, list):
        return [_printed(item, depth + 1) for item in schema]

    if not isinstance(schema, dict):
        return schema

    return {
        key: _printed(value, depth + 1, named=not named and key in _NAMED)
        for key, value in schema.items()
        if named or key not in _UNPRINTED
    }


def _format_of_class(model: type) -> Mapping[str, object] | None:
    """Read a pydantic class given to the SDK's `parse`, which sends its schema."""
    schema = getattr(model, "model_json_schema", None)
    return {"name": model.__name__, "schema": schema()} if callable(schema) else None
