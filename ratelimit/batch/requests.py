"""What is to be asked: one `Request` for each line of a file, or for each item of an
iterable.

Owns the forms in which people have requests, the refusal of what is none, and the
stable names of those that came without one. Must never come in: files, sending,
counting.

A request is a body (``{"model", "messages", ...}``), a line of the Batch API
(``{"custom_id", "method", "url", "body"}``), or a recorded call (``{"request",
"endpoint", ...}``). Its endpoint is what the line says, else what the keys of its body
say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ratelimit.errors import InvalidArgument
from ratelimit.estimate.endpoints import PATHS as ALL_PATHS
from ratelimit.estimate.endpoints import endpoint_of

PATHS: Final[Mapping[str, str]] = {
    endpoint: path
    for endpoint, path in ALL_PATHS.items()
    if endpoint not in {"images", "audio", "files"}
}
"""The endpoints a file may ask for, and their paths below the API's base URL."""

_NEEDED: Final = {
    "chat.completions": ("messages", "model"),
    "embeddings": ("input", "model"),
    "completions": ("prompt", "model"),
    "moderations": ("input",),
}
_STREAMING: Final = frozenset({"stream", "stream_options"})


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its name, the endpoint ("chat.completions"), and the body as it is
    sent.

    `given`: what it was made of, as it was handed over. A body's ``stream`` is left
    out: an answer that is kept whole need not come in pieces, and it costs the same.
    """

    custom_id: str
    endpoint: str
    body: Mapping[str, Any]
    given: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @property
    def path(self) -> str:
        """Below the base URL: "/chat/completions"."""
        return PATHS[self.endpoint]

    @property
    def model(self) -> str:
        """The model's name; "" where the body leaves it to the server."""
        model = self.body.get("model")
        return model if isinstance(model, str) else ""


def read_request(
    item: object, number: int, *, where: str = "", model: str | None = None
) -> Request:
    """Read one request; raise `InvalidArgument`, naming `where`, for what is none.

    :param number: its place, from 1: of the line in its file, of the item in its
        iterable. With the body's hash it names a request that has no ``custom_id``, so
        the name is the same in every run over the same file.
    :param model: sent in place of the model that the body names.
    """
    where = where or f"request {number}"
    if not isinstance(item, Mapping):
        raise InvalidArgument(
            f"{where} is no JSON object; a request is the body of one, or a line of the Batch API"
        )
    given = body_in(item)
    held = given is not item
    named = item.get("url", item.get("endpoint")) if held else None
    body = {name: value for name, value in given.items() if name not in _STREAMING}
    endpoint = _endpoint(named, body, where)
    if model is not None:
        body["model"] = model
    # recorded from Azure, where the path names the model
    elif "model" not in body and held and "model" in item:
        body["model"] = item["model"]
    if str(item.get("method", "POST")).upper() != "POST":
        raise InvalidArgument(
            f"{where} asks for the method {item['method']!r}; only POST makes sense"
        )
    for name in _NEEDED.get(endpoint, ()):
        if not body.get(name):
            raise InvalidArgument(f'{where} has no "{name}", which {PATHS[endpoint]} needs')
    return Request(_custom_id(item, given, number, where), endpoint, body, item)


def body_in(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """The request body that a line holds: under "body" in the Batch API's form, under
    "request" in a recorded call's, else the line itself.
    """
    return next(
        (item[key] for key in ("body", "request") if isinstance(item.get(key), Mapping)), item
    )


def _endpoint(named: object, body: Mapping[str, Any], where: str) -> str:
    if isinstance(named, str) and named:
        path = "/" + named.partition("?")[0].replace(".", "/").strip("/")
        for endpoint, tail in PATHS.items():
            if path.endswith(tail):
                return endpoint
        raise InvalidArgument(
            f"{where} asks for {named!r}; it can be one of {', '.join('/v1' + tail for tail in PATHS.values())}"
        )
    endpoint = endpoint_of(body)
    if endpoint not in PATHS and endpoint != "other":
        raise InvalidArgument(
            f"{where} is a request for {endpoint}, which a file of requests cannot ask for; it can"
            f" ask for {', '.join(PATHS)}"
        )
    if endpoint not in PATHS:
        raise InvalidArgument(
            f'{where} is no request: it has neither "messages" nor "input" nor "prompt"'
        )
    return endpoint


def _custom_id(item: Mapping[str, Any], given: Mapping[str, Any], number: int, where: str) -> str:
    custom_id = item.get("custom_id") if given is not item else None
    if custom_id is None:
        try:
            written = json.dumps(given, sort_keys=True, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgument(f"{where} cannot be written as JSON: {error}") from None
        return f"{number}-{hashlib.blake2b(written.encode(), digest_size=6).hexdigest()}"
    if not isinstance(custom_id, str) or not custom_id:
        raise InvalidArgument(f'{where}: "custom_id" should be a text, not {custom_id!r}')
    return custom_id


def key_of(custom_id: str) -> bytes:
    """16 bytes that stand for a name, so that a set of millions of them fits into
    memory (about 80 bytes each); no two names share them.
    """
    return hashlib.blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
