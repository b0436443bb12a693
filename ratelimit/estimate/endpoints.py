"""Which endpoint a request is for: from its name, its URL's path, or the keys of its
body.

Owns the endpoint names. Must never count anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from ratelimit.estimate.results import Endpoint
from ratelimit.estimate.untrusted import text

# The tails of URL paths; order matters: ".../chat/completions" ends in "completions"
# too.
_PATHS: tuple[tuple[str, Endpoint], ...] = (
    ("chat.completions", "chat.completions"),
    ("responses", "responses"),
    ("embeddings", "embeddings"),
    ("completions", "completions"),
    ("moderations", "moderations"),
    ("images", "images"),
    ("audio", "audio"),
)


@lru_cache(maxsize=256)
def endpoint_named(named: str) -> Endpoint:
    """Read the endpoint from a name or path ("chat.completions",
    "/v1/chat/completions", an Azure URL).
    """
    dotted = named.split("?", 1)[0].replace("/", ".")
    for part, endpoint in _PATHS:
        if part in dotted:
            return endpoint
    return "other"


def endpoint_of(body: Mapping[str, object]) -> Endpoint:  # noqa: PLR0911 # one answer a line reads best
    """Guess the endpoint from a body's keys."""
    model = text(body.get("model"))
    if "messages" in body:
        return "chat.completions"
    if "voice" in body or "file" in body:
        return "audio"
    if "input" in body and ("embed" in model or "encoding_format" in body or "dimensions" in body):
        return "embeddings"
    if "input" in body and "moderation" in model:
        return "moderations"
    if any(
        key in body for key in ("input", "instructions", "previous_response_id", "conversation")
    ):
        return "responses"
    if "prompt" not in body:
        return "other"
    if not isinstance(body["prompt"], (str, list, tuple)):
        return "responses"  # a stored prompt template
    pictured = (
        "size" in body
        or "image" in body
        or model.startswith(("dall-e", "gpt-image", "chatgpt-image"))
    )
    return "images" if pictured else "completions"
