"""Which formula a body's prompt is counted by.

Owns the choice by endpoint. Must never hold a formula for messages or items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ratelimit.estimate.chat import count_chat
from ratelimit.estimate.endpoints import Endpoint
from ratelimit.estimate.responses import count_responses
from ratelimit.estimate.texts import count_texts
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.unknown import add_unknown
from ratelimit.estimate.untrusted import as_count, as_mapping, as_str

_FURTHER: Final[Mapping[Endpoint, tuple[str, ...]]] = {
    "chat.completions": ("system", "documents", "data_sources"),
    "responses": ("prompt",),
    "completions": ("suffix",),
}
"""Fields in which some servers take more of a prompt than the formulas know.

A `prompt` of Responses is the server's own, with texts of the body for its variables.
"""


def add_prompt(body: Mapping[str, object], endpoint: Endpoint, totals: Totals) -> None:
    """Add the prompt of a body to `totals`."""
    for field in _FURTHER.get(endpoint, ()):
        if field in body:
            add_unknown(_without_ids(body[field]), totals)

    match endpoint:
        case "chat.completions":
            count_chat(body, totals)
        case "responses":
            count_responses(body, totals)
        case "embeddings" | "moderations":
            count_texts(body.get("input"), "input", totals)
        case "completions":
            count_texts(body.get("prompt"), "prompt", totals)
        case "images":
            totals.add_text(as_str(body.get("prompt")))
            totals.images = as_count(body.get("n")) or 1
            totals.lower_confidence("guess")
        case "audio":
            totals.add_text(as_str(body.get("input")) or as_str(body.get("prompt")))
            totals.add_text(as_str(body.get("instructions")))
            totals.lower_confidence("guess")
        case "other":
            totals.lower_confidence("guess")
            add_unknown({key: value for key, value in body.items() if key != "model"}, totals)
        case "files":
            pass


def _without_ids(value: object) -> object:
    """Return a value without the id and version of what the server has."""
    fields = as_mapping(value)
    if not fields:
        return value

    return {field: text for field, text in fields.items() if field not in {"id", "version"}}
