"""One `Request` for each line of a file, or for each item of an iterable.

Owns the forms in which people have requests, the refusal of what is none, and the
stable names of those that came without one. Must never read files, send or count.

A request is a body (``{"model", "messages", ...}``), a line of the Batch API
(``{"custom_id", "method", "url", "body"}``), or a recorded call (``{"request",
"endpoint", ...}``). Its endpoint is the one that the line names, else the one that the
caller names for all lines, else the one that the keys of its body suggest.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

from ratelimit.errors import InvalidArgument
from ratelimit.estimate.endpoints import ENDPOINTS, Endpoint, endpoint_named, endpoint_of
from ratelimit.estimate.endpoints import PATHS as ALL_PATHS

PATHS: Final[Mapping[str, str]] = {
    endpoint: path
    for endpoint, path in ALL_PATHS.items()
    if endpoint not in {"audio", "files"}  # bodies or answers there are no JSON
}
"""The endpoints that a file may name in a word, and their paths below the base URL."""

_NEEDED: Final = {
    "chat.completions": ("messages", "model"),
    "embeddings": ("input", "model"),
    "completions": ("prompt", "model"),
    "moderations": ("input",),
    "images": ("prompt",),
}
"""Fields without which a body is no request for its endpoint."""

_STREAMING: Final = frozenset({"stream", "stream_options"})
_ENVELOPE: Final = frozenset({"custom_id", "method", "url"})
"""Fields of the Batch API's lines, which no body has."""

_MISSPELLED: Final = 0.88
"""Likeness, of `difflib`, from which a path counts as a misspelling of a known one."""

_PATH: Final = re.compile(r"(/[\w.:-]+)+", re.ASCII)
"""A path below the base URL."""


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """One request: its name, its endpoint, and the body as it is sent.

    A body's ``stream`` is left out: an answer that is kept whole need not come in
    pieces, and it costs the same.
    """

    custom_id: str
    endpoint: str
    """A name ("chat.completions"), or a path below the base URL ("/rerank")."""
    body: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict)
    """What it was made of, as it was handed over."""

    @property
    def path(self) -> str:
        """Below the base URL: "/chat/completions"."""
        endpoint = read_endpoint(self.endpoint)
        return PATHS.get(endpoint, endpoint)

    @property
    def model(self) -> str:
        """The model's name; empty where the body leaves it to the server."""
        model = self.body.get("model")
        return model if isinstance(model, str) else ""

    def __repr__(self) -> str:
        return f"<Request {self.custom_id!r} for {self.endpoint}>"


class _Line(NamedTuple):
    """An item taken apart."""

    body: Mapping[str, Any]
    named: object
    """The endpoint's name or URL, where the item has one."""
    model: object
    """The model that a recorded call names beside its body."""
    custom_id: object
    method: object


def read_request(
    item: object,
    number: int,
    *,
    where: str = "",
    model: str | None = None,
    endpoint: str | None = None,
    option: str = "endpoint=",
    counted: bool = False,
) -> Request:
    """Read one request; raise `InvalidArgument`, naming `where`, for what is none.

    :param number: its place, from 1: of the line in its file, of the item in its
        iterable. With the body's hash it names a request that has no ``custom_id``, so
        the name is the same in every run over the same file.
    :param model: sent in place of the model that the body names.
    :param endpoint: of an item that names none itself; a name or path, see
        `read_endpoint`.
    :param option: how the caller's user gives that endpoint; "" where there is no way.
    :param counted: it is only counted, and never sent.
    """
    where = where or f"request {number}"
    if not isinstance(item, Mapping):
        raise InvalidArgument(
            f"{where} is no JSON object; a request is the body of one, or a line of the Batch API"
        )

    line = _take_apart(item)
    body = {name: value for name, value in line.body.items() if name not in _STREAMING}
    named = endpoint if line.named is None else line.named
    chosen = _endpoint(named, body, where, option, counted=counted)
    if model is not None:
        body["model"] = model
    # recorded from Azure, where the path names the model
    elif "model" not in body and line.model is not None:
        body["model"] = line.model

    if str(line.method).upper() != "POST":
        raise InvalidArgument(f"{where} asks for the method {line.method!r}; only POST makes sense")

    for name in _NEEDED.get(chosen, ()):
        if not body.get(name):
            raise InvalidArgument(f'{where} has no "{name}", which {PATHS[chosen]} needs')

    return Request(_custom_id(line, number, where), chosen, body, item)


@lru_cache(maxsize=256)
def read_endpoint(named: str, *, counted: bool = False) -> str:
    """Read an endpoint: a name of `PATHS`, or the path below the API's version.

    A URL or path is shortened to its name or to what follows "/v1". Raises
    `InvalidArgument` for what is neither, for what is nearly one of `PATHS`, and for
    what is asked or answered in another form than JSON.

    :param counted: the request is only counted, so the form does not matter.
    """
    endpoint = endpoint_named(named)
    if endpoint != "other":
        if not counted:
            _check_json(endpoint, named)
        return _shortened(endpoint, named)

    bare = named.partition("?")[0]
    below = "/" + bare.partition("/v1/")[2].strip("/")
    if below == "/":
        below = bare.rstrip("/")
    guessed = below if below.startswith("/") else "/" + bare.replace(".", "/").strip("/")
    near = difflib.get_close_matches(guessed, PATHS.values(), 1, _MISSPELLED)
    if near:
        raise InvalidArgument(f"{named!r} is no endpoint; /v1{near[0]} is")

    if not _PATH.fullmatch(below):
        known = ", ".join("/v1" + tail for tail in PATHS.values())
        raise InvalidArgument(
            f"{named!r} is no endpoint; name one of {known}, or another one by its path"
        )

    return below


def _check_json(endpoint: str, named: str) -> None:
    if endpoint not in PATHS:
        raise InvalidArgument(
            f"{named!r} takes or gives what is no JSON, such as sound or files, which a file of"
            " results cannot keep; call it with the client itself, wrapped by the limiter"
        )


def _shortened(endpoint: Endpoint, named: str) -> str:
    """Return the name of an endpoint, or its path where that is not the first one."""
    path = "/" + named.partition("?")[0].removesuffix(".create").replace(".", "/").strip("/")
    ends = [f"/{end}" for end in ENDPOINTS if path.endswith(f"/{end}")]
    end = max(ends, key=len, default=ALL_PATHS[endpoint])
    return endpoint if end == ALL_PATHS[endpoint] else end


def body_in(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the request body that a line holds.

    It stands under "body" in the Batch API's form, under "request" in a recorded
    call's; else it is the line itself.
    """
    return _take_apart(item).body


def _take_apart(item: Mapping[str, Any]) -> _Line:
    for key in ("body", "request"):
        body = item.get(key)
        if isinstance(body, Mapping):
            return _Line(
                body,
                item["url"] if item.get("url") is not None else item.get("endpoint"),
                item.get("model"),
                item.get("custom_id"),
                item.get("method", "POST"),
            )

    if not _ENVELOPE & item.keys():
        return _Line(item, None, None, None, "POST")

    bare = {name: value for name, value in item.items() if name not in _ENVELOPE}
    return _Line(bare, item.get("url"), None, item.get("custom_id"), item.get("method", "POST"))


def _endpoint(
    named: object, body: Mapping[str, Any], where: str, option: str, *, counted: bool
) -> str:
    if named is None:
        named = _endpoint_of(body, where, option)
    elif not isinstance(named, str) or not named:
        raise InvalidArgument(
            f'{where}: the endpoint ("url") should be a text such as "/v1/chat/completions", not'
            f" {named!r:.40}"
        )
    try:
        return read_endpoint(named, counted=counted)
    except InvalidArgument as error:
        raise InvalidArgument(f"{where}: {error}") from None


def _endpoint_of(body: Mapping[str, Any], where: str, option: str) -> str:
    endpoint = endpoint_of(body)
    if endpoint == "other":
        otherwise = f", or {option}" if option else ""
        raise InvalidArgument(
            f'{where} is no request: it has neither "messages" nor "input" nor "prompt";'
            f' if its endpoint takes other fields, name it: "url" in the line{otherwise}'
        )
    return endpoint


def _custom_id(line: _Line, number: int, where: str) -> str:
    if line.custom_id is None:
        try:
            written = json.dumps(line.body, sort_keys=True, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgument(f"{where} cannot be written as JSON: {error}") from None
        return f"{number}-{hashlib.blake2b(written.encode(), digest_size=6).hexdigest()}"

    if line.custom_id == "":
        raise InvalidArgument(
            f'{where}: its "custom_id" is empty; give it a name, or leave the field out'
        )
    if not isinstance(line.custom_id, str):
        raise InvalidArgument(f'{where}: "custom_id" should be a text, not {line.custom_id!r:.40}')
    return line.custom_id


def key_of(custom_id: str) -> bytes:
    """Return 16 bytes that stand for a name; no two names share them.

    A set of millions of them fits into memory (about 80 bytes each).
    """
    return hashlib.blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
