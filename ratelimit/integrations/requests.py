"""What an HTTP request asks for: its endpoint, its model and its body.

Owns which requests are metered, and the reading of their bodies. Must never wait, or
import an HTTP library: requests are used by their names only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from ratelimit.errors import LimiterWarning
from ratelimit.estimate import Estimate
from ratelimit.estimate.endpoints import below_base, endpoint_of_path
from ratelimit.estimate.models import traits_of
from ratelimit.events.records import name_of
from ratelimit.families import base_model
from ratelimit.feedback.untrusted import decoded
from ratelimit.integrations.settlement import warn_once
from ratelimit.integrations.vendors import translated

UNMETERED: Final = frozenset(
    {
        "assistants",
        "batches",
        "chatkit",
        "containers",
        "conversations",
        "evals",
        "files",
        "fine_tuning",
        "graders",
        "oauth",
        "oauth2",
        "organization",
        "realtime",
        "skills",
        "threads",
        "uploads",
        "vector_stores",
        "webhooks",
    }
)
"""Collections that no model answers for, so that no model's limits hold for what is
below them. Source: OpenAI's API reference, and the paths by which tokens are fetched.
What their background jobs use is limited elsewhere.
"""

_FREE_ENDS: Final = frozenset({"cancel", "input_tokens", "count_tokens", "countTokens", "tokenize"})
"""Last words of paths that count or cancel, and use no tokens."""

_STORED: Final = frozenset({"responses", "completions"})
"""Collections in which a POST to a member's id changes the member, at no cost."""

_MODEL_IN_PATH: Final = re.compile(r".*/(?:models?|deployments|engines)/([^/:]+)")
"""Where Gemini, Vertex, Bedrock and Azure name the model: the last of such names."""

_FORM_FIELDS: Final = frozenset(
    {"model", "prompt", "n", "size", "quality", "input", "response_format"}
)
"""Fields of a multipart form that an estimate reads."""


_PART: Final = re.compile(
    rb'form-data; name="(?P<name>[a-z_]{1,40})"(?:\r\n[^\r\n]{1,200})*\r\n\r\n'
    rb"(?P<value>[^\r\n]{0,10000})\r\n--"
)
"""A part of a multipart form that holds a text and no file."""


class MeteredCall(NamedTuple):
    """A request that costs something."""

    endpoint: str | None
    """OpenAI's name for it, "files" for an upload; None for another API's."""
    model: str
    """As the body or the path names it; "" where none does."""
    body: Mapping[str, Any] | None
    """What an estimate reads; None where only a request is counted."""

    def fits(self, estimate: Estimate | None) -> bool:
        """Tell whether an admission of this estimate was for this endpoint and model.

        What an estimate does not say, or says by a name of the user's own, is no
        objection; without an estimate nothing is said.
        """
        if self.endpoint == "files":
            return False
        if estimate is None:
            return True
        if self.endpoint is not None and estimate.endpoint not in {"other", self.endpoint}:
            return False

        expected, named = traits_of(estimate.model), traits_of(self.model)
        if not (expected.openai and named.openai):
            return True
        return base_model(expected.name) == base_model(named.name)


def metered_call(request: Any) -> MeteredCall | None:
    """Read what a request asks for; None when it costs nothing.

    OpenAI's endpoints are metered by their bodies, and so is what any other API is
    asked with a model's name, as far as the body is understood. Whatever else is posted
    passes unmetered, with one warning unless it is known to cost nothing.
    """
    if request.method != "POST":
        return None

    path: str = request.url.path
    endpoint = endpoint_of_path(path)
    if endpoint == "files":
        return MeteredCall("files", "", None)
    if endpoint is not None:
        body = body_of(request, endpoint)
        if endpoint == "completions" and "messages" in body:
            endpoint = "chat.completions"  # Mistral's agents
        if "model" not in body and (model := _model_in(path)):
            body = {**body, "model": model}
        return MeteredCall(endpoint, str(body.get("model") or ""), body)
    if _costs_nothing(path):
        return _conversation(request, path)
    return _other_call(request, path)


@lru_cache(maxsize=512)
def _costs_nothing(path: str) -> bool:
    parts = below_base(path)
    stored = not _STORED.isdisjoint(parts[-2:-1])
    last = re.split("[/:]", path.rstrip("/"))[-1]
    return stored or last in _FREE_ENDS or not UNMETERED.isdisjoint(parts)


@lru_cache(maxsize=512)
def _model_in(path: str) -> str:
    found = _MODEL_IN_PATH.match(path)
    return found[1] if found else ""


def _conversation(request: Any, path: str) -> MeteredCall | None:
    """Read a turn of a conversation that Mistral stores and answers.

    OpenAI's conversations only store items, and cost nothing.
    """
    if "conversations" not in below_base(path):
        return None

    content = _content(request)
    body = decoded(content) if content else None
    if not isinstance(body, dict) or "inputs" not in body:
        return None

    model = body.get("model")
    named = model if isinstance(model, str) else ""
    return MeteredCall("responses", named, translated(body, named))


def _other_call(request: Any, path: str) -> MeteredCall | None:
    """Read a call to an API that is not OpenAI's.

    Such as Anthropic's messages, Gemini's contents, a rerank.
    """
    content = _content(request)
    body = decoded(content) if content else None
    if not isinstance(body, dict):
        body = {}

    model = body.get("model") or _model_in(path)
    if not isinstance(model, str) or not model:
        name = path.rstrip("/").rpartition("/")[2]
        warn_once(
            f"unmetered {re.sub('[^a-zA-Z]', '', name)[:40]}",
            f"POST {name_of(path)} is no endpoint of OpenAI's and names no model: it passes the"
            " limiter unmetered; put limiter.reserve(...) around it if it counts against a limit",
            LimiterWarning,
        )
        return None

    return MeteredCall(None, model, translated(body, model))


def body_of(request: Any, endpoint: str) -> Mapping[str, Any]:
    """Read a request's JSON, or the fields of its form.

    Warn once, and return no fields, when it cannot be read.
    """
    content = _content(request)
    body = decoded(content) if content else None
    if isinstance(body, dict):
        return body

    form = _form(request)
    if form is None and content:
        form = _form_of_bytes(content) or None
    if form is not None:
        return form

    warn_once(
        f"unread {endpoint}",
        f"the body of a call to {endpoint} could not be read (it is streamed, or not JSON): it is"
        " admitted as one request with the default number of tokens; to meter it exactly use"
        " limiter.reserve(tokens=...) around the call",
    )
    return {}


def _content(request: Any) -> bytes | None:
    """Return a request's body; None when it is a stream, which must not be consumed."""
    try:
        content: bytes = request.content
    except RuntimeError:  # the library's RequestNotRead
        # A redirected request has the first one's stream of bytes, which can be read
        # any number of times.
        content = getattr(getattr(request, "stream", None), "_stream", b"")
    return content if isinstance(content, bytes) else None


def _form(request: Any) -> dict[str, Any] | None:
    """Read the small fields of a multipart form; None when the request is no form.

    The libraries keep them apart until they send.
    """
    fields = getattr(getattr(request, "stream", None), "fields", None)
    if not isinstance(fields, list):
        return None

    return _readable_fields(
        (getattr(field, "name", None), getattr(field, "value", None)) for field in fields
    )


def _form_of_bytes(content: bytes) -> dict[str, Any]:
    """Read the small fields of a multipart form that is bytes already.

    As one that is sent again after a redirect.
    """
    return _readable_fields(
        (found["name"].decode(), found["value"]) for found in _PART.finditer(content)
    )


def _readable_fields(fields: Iterable[tuple[object, object]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in fields:
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")  # noqa: PLW2901  # the same value as text
        if name == "n" and isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)  # noqa: PLW2901  # the same value as a number
        if isinstance(name, str) and name in _FORM_FIELDS and isinstance(value, (str, int)):
            found[name] = value
    return found


def readable(accepted: str) -> str:
    """Return an accept-encoding without what meters cannot read.

    The standard library inflates gzip and deflate, but not br and zstd.
    """
    kept = [
        coding.strip()
        for coding in accepted.split(",")
        if coding.split(";")[0].strip().lower() not in {"br", "zstd", "*"}
    ]
    return ", ".join(kept) or "identity"
