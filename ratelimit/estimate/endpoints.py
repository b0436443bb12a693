"""The endpoints of calls that cost, and which of them a request is for.

Owns the one table of endpoints: the ends of their URL paths, their names, and what a
body that comes without an endpoint is taken for. Must never count anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from ratelimit.estimate.untrusted import as_sequence, as_str, sent_body

Endpoint: TypeAlias = Literal[
    "chat.completions",
    "responses",
    "embeddings",
    "completions",
    "images",
    "audio",
    "moderations",
    "files",
    "other",
]

ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    "chat/completions": "chat.completions",
    "responses": "responses",
    "responses/compact": "responses",
    "embeddings": "embeddings",
    "completions": "completions",
    "images/generations": "images",
    "images/edits": "images",
    "images/variations": "images",
    "audio/speech": "audio",
    "audio/transcriptions": "audio",
    "audio/translations": "audio",
    "moderations": "moderations",
    "files": "files",
    "uploads": "files",
}
"""Ends of URL paths, whatever host, version or deployment stands before them.

Where one end is the end of another ("completions"), the longer one is meant. Source:
OpenAI's API reference.
"""

PATHS: Final[Mapping[Endpoint, str]] = {
    endpoint: f"/{next(end for end, name in ENDPOINTS.items() if name == endpoint)}"
    for endpoint in ENDPOINTS.values()
}
"""The first path of each endpoint, below the API's base URL."""

_VERSION: Final = re.compile(r"v[0-9]+(?:[.][0-9]+)*(?:(?:alpha|beta|preview)[0-9]*)?")
_NAMING: Final = frozenset({"deployments", "engines", "model", "models"})
"""What stands before a model's name in a path."""

_OWNERS: Final = frozenset({"vector_stores", "containers", "assistants"})
"""Collections with members that hold files: adding one there uploads nothing."""

_EMBEDDING_MODELS: Final = ("embed", "bge-", "gte-", "e5-", "minilm", "voyage-")
"""Parts of the names of embedding models, OpenAI's and those of other makers."""

_IMAGE_MODELS: Final = ("dall-e", "gpt-image", "chatgpt-image")


@lru_cache(maxsize=512)
def endpoint_of_path(path: str) -> Endpoint | None:
    """Return the endpoint at the end of a URL's path, None for what costs nothing."""
    parts = path.strip("/").split("/")
    endpoint = ENDPOINTS.get("/".join(parts[-2:])) or ENDPOINTS.get(parts[-1])
    if endpoint == "files" and not _OWNERS.isdisjoint(below_base(path)[-3:-2]):
        return None

    return endpoint


def below_base(path: str) -> list[str]:
    """Return the parts of a path behind its last version or name of a model.

    What stands before them is the user's to name: a gateway's prefix, an organization,
    a deployment.
    """
    parts = path.strip("/").split("/")
    for position in range(len(parts) - 1, -1, -1):
        named = position > 0 and parts[position - 1] in _NAMING
        if named or _VERSION.fullmatch(parts[position]):
            return parts[position + 1 :]
    return parts


@lru_cache(maxsize=256)
def endpoint_named(named: str) -> Endpoint:
    """Read an endpoint's name or path.

    Takes "chat.completions", "audio.speech", "/v1/chat/completions" and whole URLs, a
    query included; anything else is "other".
    """
    bare = named.partition("?")[0].removesuffix(".create")
    known = next((endpoint for endpoint in PATHS if endpoint == bare), None)
    return known or endpoint_of_path(bare.replace(".", "/")) or "other"


def endpoint_of(body: Mapping[str, object]) -> Endpoint:
    """Guess the endpoint that a body without one is sent to, by its fields."""
    body = sent_body(body)
    if "messages" in body:
        return "chat.completions"

    if "voice" in body or "file" in body:
        return "audio"

    if "input" in body:
        return _endpoint_of_input(body)

    if any(field in body for field in ("instructions", "previous_response_id", "conversation")):
        return "responses"

    if "prompt" in body:
        return _endpoint_of_prompt(body)

    return "other"


def _endpoint_of_input(body: Mapping[str, object]) -> Endpoint:
    model = as_str(body.get("model")).lower()
    if "moderation" in model:
        return "moderations"

    if "tts" in model.split("-"):
        return "audio"

    embeds = any(name in model for name in _EMBEDDING_MODELS)
    if embeds or "encoding_format" in body or "dimensions" in body:
        return "embeddings"

    # A list of texts, of token numbers or of lists of them is no input of Responses,
    # which takes a text or a list of objects. Only moderations need no model.
    items = as_sequence(body["input"])
    if items and isinstance(items[0], (str, int, list, tuple)):
        return "embeddings" if model else "moderations"

    return "responses"


def _endpoint_of_prompt(body: Mapping[str, object]) -> Endpoint:
    if "size" in body or "image" in body:
        return "images"

    if as_str(body.get("model")).startswith(_IMAGE_MODELS):
        return "images"

    # A prompt that is an object names a prompt stored for Responses.
    return "responses" if isinstance(body["prompt"], Mapping) else "completions"
