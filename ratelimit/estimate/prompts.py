"""Which formula a body's prompt is counted by.

Owns the choice by endpoint. Must never hold a formula for messages or items.
"""

from __future__ import annotations

from collections.abc import Mapping

from ratelimit.estimate.chat import count_chat
from ratelimit.estimate.endpoints import Endpoint
from ratelimit.estimate.responses import count_responses
from ratelimit.estimate.texts import count_texts
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.unknown import add_unknown
from ratelimit.estimate.untrusted import as_count, as_str


def add_prompt(body: Mapping[str, object], endpoint: Endpoint, totals: Totals) -> None:
    """Add the prompt of a body to `totals`."""
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
