"""One HTTP request, read: which endpoint, which model, whose key, and what is wrong
with it.

Owns: paths, request headers, JSON, and the checks that make a 400, 401 or 404. What
must never come in: limits, answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Call", "Problem", "read_call"]

# What the path ends with -> endpoint. Azure's deployment paths end alike.
_ENDPOINTS = {
    "chat/completions": "chat.completions",
    "responses": "responses",
    "completions": "completions",
    "embeddings": "embeddings",
    "moderations": "moderations",
    "images/generations": "images",
    "audio/speech": "audio.speech",
    "audio/transcriptions": "audio.transcriptions",
    "models": "models",
}
_NEEDED = {
    "chat.completions": "messages",
    "responses": "input",
    "completions": "prompt",
    "embeddings": "input",
    "moderations": "input",
}
_WITHOUT_JSON = {"models", "audio.transcriptions"}
_KEPT_HEADERS = (b"x-stainless-retry-count", b"x-client-request-id", b"idempotency-key", b"x-fake-")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a request cannot be served: the status and the error's fields."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None


@dataclass(slots=True)
class Call:
    """A request as the server understands it; `problem` is set when it cannot be
    served.
    """

    endpoint: str
    model: str = ""
    key: str = ""
    organisation: str = ""
    project: str = ""
    raw: bytes = b""
    body: Mapping[str, Any] = field(default_factory=dict)
    known: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    problem: Problem | None = None
    prompt_tokens: int | None = None  # as billed, once somebody has counted

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted as server-sent events."""
        return self.body.get("stream") is True


def read_call(
    method: str,
    path: str,
    headers: Iterable[tuple[bytes, bytes]],
    raw: bytes,
    keys: Mapping[str, str] | None,
) -> Call:
    """Read one request; `keys` maps the accepted keys to their organisations, None
    accepts all as one.
    """
    given = dict(headers)
    call = Call(_endpoint(path), raw=raw)
    call.key = (
        given.get(b"authorization", b"").removeprefix(b"Bearer ") or given.get(b"api-key", b"")
    ).decode("latin-1")
    call.project = given.get(b"openai-project", b"").decode("latin-1")
    call.headers = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in given.items()
        if name.startswith(_KEPT_HEADERS)
    }
    call.organisation = "org-fake" if keys is None else keys.get(call.key, "")
    call.problem = _problem(call, method, path, given)
    return call


def _endpoint(path: str) -> str:
    parts = path.rstrip("/").rsplit("/", 2)
    return _ENDPOINTS.get("/".join(parts[-2:])) or _ENDPOINTS.get(parts[-1], "")


def _problem(call: Call, method: str, path: str, given: Mapping[bytes, bytes]) -> Problem | None:
    if not call.organisation:
        shown = f"{call.key[:8]}***" if call.key else "(none)"
        return Problem(
            401,
            f"Incorrect API key provided: {shown}. This server accepts the keys it was given.",
            code="invalid_api_key",
        )
    if not call.endpoint or (method != "POST" and call.endpoint != "models"):
        return Problem(404, f"Invalid URL ({method} {path})")
    if call.endpoint in _WITHOUT_JSON:
        return None
    return (
        _read_json(call, given.get(b"x-fake-usage", b"{}"))
        or _name_model(call, path)
        or _bad_argument(call)
    )


def _read_json(call: Call, known: bytes) -> Problem | None:
    try:
        body, usage = json.loads(call.raw), json.loads(known)
    except (ValueError, RecursionError):
        return Problem(400, "We could not parse the JSON body of your request.")
    if not isinstance(body, dict) or not isinstance(usage, dict):
        return Problem(
            400, "The body of your request, and its x-fake-usage header, have to be JSON objects."
        )
    call.body, call.known = body, usage
    return None


def _name_model(call: Call, path: str) -> Problem | None:
    """The body names the model, or Azure's path its deployment."""
    deployment = path.partition("/deployments/")[2].partition("/")[0]
    model = call.body.get("model") or deployment
    call.model = model if isinstance(model, str) else ""
    return None if call.model else Problem(400, "you must provide a model parameter")


def _bad_argument(call: Call) -> Problem | None:
    body, needed = call.body, _NEEDED.get(call.endpoint)
    if needed is not None:
        value = body.get(needed)
        if value is None or value == []:
            return Problem(
                400,
                f"Missing required parameter: '{needed}'.",
                needed,
                "missing_required_parameter",
            )
        if not isinstance(value, list) and (needed == "messages" or not isinstance(value, str)):
            return Problem(400, f"Invalid type for '{needed}'.", needed, "invalid_type")
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "n"):
        value = body.get(name)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            return Problem(
                400,
                f"Invalid '{name}': expected a whole number of at least 1.",
                name,
                "integer_below_min_value",
            )
    for name in ("prompt_tokens", "completion_tokens"):
        value = call.known.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            return Problem(
                400, f"x-fake-usage: '{name}' is not a whole number of tokens.", "x-fake-usage"
            )
    return None
