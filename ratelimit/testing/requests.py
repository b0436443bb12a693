"""One HTTP request, read: its endpoint, model and key, and what is wrong with it.

Owns paths, request headers, JSON, forms, and the checks that make a 400, 401 or 404.
Must never touch limits or answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Final

__all__ = ["Call", "Problem", "find_deployment", "read_call"]

_ENDPOINTS: Final = {
    "chat/completions": "chat.completions",
    "responses": "responses",
    "responses/compact": "responses.compact",
    "responses/input_tokens": "responses.input_tokens",
    "completions": "completions",
    "embeddings": "embeddings",
    "moderations": "moderations",
    "images/generations": "images",
    "images/edits": "images.edits",
    "images/variations": "images.variations",
    "audio/speech": "audio.speech",
    "audio/transcriptions": "audio.transcriptions",
    "audio/translations": "audio.translations",
    "models": "models",
}
"""What the path ends with, and the endpoint; Azure's deployment paths end alike."""
_NEEDED: Final = {
    "chat.completions": "messages",
    "responses": "input",
    "completions": "prompt",
    "embeddings": "input",
    "moderations": "input",
    "images": "prompt",
    "images.edits": "prompt",
    "images.variations": "image",
    "audio.speech": "input",
    "audio.transcriptions": "file",
    "audio.translations": "file",
}
_DEFAULT_MODELS: Final = {
    "moderations": "omni-moderation-latest",
    "images": "gpt-image-1",
    "images.edits": "gpt-image-1",
    "images.variations": "dall-e-2",
}
"""Of the endpoints that do not ask for a model."""
_WHOLE_NUMBERS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n")
_TYPES: Final = {
    "tools": list,
    "response_format": dict,
    "text": dict,
    "metadata": dict,
    "stream_options": dict,
}
"""Of optional fields of chat and Responses."""
_KNOWN_NUMBERS: Final = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
_KEPT_HEADERS: Final = (
    b"x-stainless-retry-count",
    b"x-client-request-id",
    b"idempotency-key",
    b"x-fake-",
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a request cannot be served: the status and the error's fields."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None


@dataclass(slots=True)
class Call:
    """A request as the server reads it."""

    endpoint: str
    model: str = ""
    key: str = ""
    organisation: str = ""
    project: str = ""
    path: str = ""
    query: str = ""
    raw: bytes = b""
    body: Mapping[str, Any] = field(default_factory=dict)
    known: Mapping[str, Any] = field(default_factory=dict)
    """The workload's figures of the usage, from the header `x-fake-usage`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Those that distinguish attempts."""
    problem: Problem | None = None
    """Set when the call cannot be served."""
    prompt_tokens: int | None = None
    """As billed, once they have been counted."""

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
    """Read one request.

    :param keys: the accepted API keys and the organisation of each; None accepts every
        key as one organisation.
    """
    given = dict(headers)
    call = Call(_endpoint(method, path), path=path, raw=raw)
    bearer = given.get(b"authorization", b"").removeprefix(b"Bearer ")
    call.key = (bearer or given.get(b"api-key", b"")).decode("latin-1")
    call.project = given.get(b"openai-project", b"").decode("latin-1")
    call.headers = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in given.items()
        if name.startswith(_KEPT_HEADERS)
    }
    call.organisation = "org-fake" if keys is None else keys.get(call.key, "")
    call.problem = _problem(call, method, given)
    return call


def find_deployment(call: Call, deployments: Mapping[str, str] | None) -> None:
    """Put the model of a deployment in its place; a name that is none is a 404."""
    if deployments is None or call.problem is not None or call.endpoint == "models":
        return
    if call.model in deployments:
        call.model = deployments[call.model]
        return
    call.problem = Problem(
        404, "The API deployment for this resource does not exist.", code="DeploymentNotFound"
    )


def _endpoint(method: str, path: str) -> str:
    parts = path.rstrip("/").rsplit("/", 2)
    found = _ENDPOINTS.get("/".join(parts[-2:])) or _ENDPOINTS.get(parts[-1], "")
    if method == "GET":
        return "models" if found == "models" or "/models/" in path else ""

    return found if found != "models" else ""


def _problem(call: Call, method: str, given: Mapping[bytes, bytes]) -> Problem | None:
    if not call.organisation:
        shown = f"{call.key[:8]}***" if call.key else "(none)"
        return Problem(
            401,
            f"Incorrect API key provided: {shown}. This server accepts the keys it was given.",
            code="invalid_api_key",
        )

    if not call.endpoint:
        return Problem(404, f"Invalid URL ({method} {call.path})")

    if call.endpoint == "models":
        call.model = call.path.partition("/models/")[2].rstrip("/")
        return None

    kind = given.get(b"content-type", b"")
    form = kind.startswith(b"multipart/form-data")
    return (
        (_read_form(call, kind) if form else _read_json(call))
        or _read_known(call, given.get(b"x-fake-usage", b"{}"))
        or _name_model(call)
        or _bad_argument(call)
    )


def _read_json(call: Call) -> Problem | None:
    try:
        body = json.loads(call.raw)
    except (ValueError, RecursionError):
        return Problem(400, "We could not parse the JSON body of your request.")

    if not isinstance(body, dict):
        return Problem(400, "The body of your request has to be a JSON object.")

    call.body = body
    return None


def _read_form(call: Call, kind: bytes) -> Problem | None:
    """Read a form: texts as they are, a file as its name, names with [] as lists."""
    head = b"Content-Type: " + kind + b"\r\n\r\n"
    message = BytesParser(policy=HTTP).parsebytes(head + call.raw)
    if not message.is_multipart():
        return Problem(400, "We could not parse the form of your request.")

    body: dict[str, Any] = {}
    for part in message.iter_parts():
        name = str(part.get_param("name", "", header="content-disposition"))
        value: Any = part.get_filename()
        if value is None:
            content = part.get_payload(decode=True)
            text = content.decode("utf-8", "replace") if isinstance(content, bytes) else ""
            value = _field(name, text)

        if name.endswith("[]"):
            body.setdefault(name.removesuffix("[]"), []).append(value)
        else:
            body[name] = value

    call.body = body
    return None


def _field(name: str, text: str) -> str | int | bool:
    """Return a form's text as JSON has it."""
    if name == "stream":
        return text == "true"

    return int(text) if name == "n" and text.isdecimal() else text


def _read_known(call: Call, known: bytes) -> Problem | None:
    try:
        usage = json.loads(known)
    except (ValueError, RecursionError):
        usage = None

    if not isinstance(usage, dict):
        return Problem(400, "The header x-fake-usage has to be a JSON object.", "x-fake-usage")

    for name in _KNOWN_NUMBERS:
        if not _is_whole(usage.get(name, 0), least=0):
            text = f"x-fake-usage: '{name}' is not a whole number of tokens."
            return Problem(400, text, "x-fake-usage")

    call.known = usage
    return None


def _name_model(call: Call) -> Problem | None:
    """Set the model: the body names it, or Azure's path its deployment."""
    deployment = call.path.partition("/deployments/")[2].partition("/")[0]
    model = call.body.get("model") or deployment or _DEFAULT_MODELS.get(call.endpoint)
    call.model = model if isinstance(model, str) else ""
    return None if call.model else Problem(400, "you must provide a model parameter")


def _bad_argument(call: Call) -> Problem | None:
    body, needed = call.body, _NEEDED.get(call.endpoint)
    if needed is not None:
        value = body.get(needed)
        if value is None or value == []:
            text = f"Missing required parameter: '{needed}'."
            return Problem(400, text, needed, "missing_required_parameter")

        if not isinstance(value, list) and (needed == "messages" or not isinstance(value, str)):
            return Problem(400, f"Invalid type for '{needed}'.", needed, "invalid_type")

    if call.endpoint in {"chat.completions", "responses"}:
        wrong = _wrong_type(body, str(needed))
        if wrong:
            return Problem(400, f"Invalid type for '{wrong}'.", wrong, "invalid_type")

    for name in _WHOLE_NUMBERS:
        value = body.get(name)
        if value is not None and not _is_whole(value, least=1):
            text = f"Invalid '{name}': expected a whole number of at least 1."
            return Problem(400, text, name, "integer_below_min_value")

    return None


def _wrong_type(body: Mapping[str, Any], needed: str) -> str:
    """Return the first field of a chat or response that has the wrong type, else ""."""
    for name, kind in _TYPES.items():
        if not isinstance(body.get(name), kind | None):
            return name

    items = body[needed] if isinstance(body[needed], list) else []
    places = (place for place, item in enumerate(items) if not isinstance(item, dict))
    return next((f"{needed}[{place}]" for place in places), "")


def _is_whole(value: object, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
