"""Response formats: what a JSON schema for the answer adds to the prompt.

Owns the text a format becomes. Must never know a message or a limiter. Source: recorded
calls with `json_schema` formats: the schema is printed as it was sent, escaped to
ASCII, without the keys in `_UNPRINTED`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache

from ratelimit.estimate.untrusted import dumped, items, obj, text

_UNPRINTED = frozenset(
    [
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
    ]
)
_NAMED = frozenset({"properties", "$defs", "definitions"})  # their keys are names, not keywords
_DEEPEST = 40
LONGEST_KEPT = 100_000  # characters of a schema whose print is kept


def chat_format(body: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return the `json_schema` (name, description, schema) of a chat body's
    response_format, None without one.
    """
    wanted = body.get("response_format")
    if wanted is None:
        return None
    if isinstance(wanted, type):
        return _of_class(wanted)
    answer = obj(wanted)
    return obj(answer.get("json_schema")) if text(answer.get("type")) == "json_schema" else None


def responses_format(body: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return the `json_schema` format (name, description, schema) of a Responses body,
    None without one.
    """
    wanted = body.get("text_format")
    if isinstance(wanted, type):
        return _of_class(wanted)
    answer = obj(obj(body.get("text")).get("format"))
    return answer if text(answer.get("type")) == "json_schema" else None


def format_text(answer: Mapping[str, object]) -> str:
    """Print a format as the models are shown it."""
    description = text(answer.get("description"))
    schema = json.dumps(answer.get("schema"), default=dumped, skipkeys=True)
    printed = (_schema if len(schema) <= LONGEST_KEPT else _schema.__wrapped__)(schema)
    return (
        f"# Response Formats\n\n## {text(answer.get('name'))}\n\n"
        + (f"// {description}\n" if description else "")
        + printed
    )


@lru_cache(maxsize=64)
def _schema(schema: str) -> str:
    """Print a schema given as a JSON text, which is a key that cannot change."""
    return json.dumps(_printed(json.loads(schema), 0), separators=(",", ":"))


def _printed(schema: object, depth: int, *, named: bool = False) -> object:
    if depth > _DEEPEST:
        return {}
    fields = obj(schema)
    if fields:
        kept = (
            fields.items()
            if named
            else ((key, value) for key, value in fields.items() if key not in _UNPRINTED)
        )
        return {
            str(key): _printed(value, depth + 1, named=not named and key in _NAMED)
            for key, value in kept
        }
    if isinstance(schema, (list, tuple)):
        return [_printed(item, depth + 1) for item in items(schema)]
    return schema


def _of_class(model: type) -> Mapping[str, object] | None:
    """Read a pydantic class given to the SDK's `parse`, which sends its schema."""
    schema = getattr(model, "model_json_schema", None)
    return {"name": model.__name__, "schema": schema()} if callable(schema) else None
