"""What the HTTP door knows of requests and answers: which calls cost, what they ask
for, and what an answer settles.

Owns the reading of a request's body, and the taps: readers that
see an answer's bytes pass. Sync and async doors share all of it. Must never come in:
waiting, the network, an HTTP library (requests, answers and headers are used by their
names only).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

from ratelimit.errors import EstimateWarning, LimiterWarning, caution
from ratelimit.estimate.endpoints import endpoint_of_path
from ratelimit.feedback import JsonReader, Refusal, SSEUsage, header_values, read_error
from ratelimit.lease import AdmittedLease as Lease

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""As they came, in any case: the libraries' own look-ups walk and decode the whole list
for every name.
"""

_FIELDS: Final = frozenset({"model", "prompt", "n", "size", "quality", "input", "response_format"})
_warned: set[str] = set()
_DECODER = json.JSONDecoder()


def warn_once(kind: str, message: str, category: type[LimiterWarning] = EstimateWarning) -> None:
    """Warn once per kind and process; what is wrong with one body is wrong with the
    next thousand.
    """
    if kind not in _warned:
        _warned.add(kind)
        caution(message, category)


# ---- requests -----------------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def endpoint_of(path: str) -> tuple[str, str] | None:
    """Tell (endpoint, deployment) of a URL's path; None when calls to it are not
    metered. The deployment is "" outside Azure.
    """
    endpoint = endpoint_of_path(path)
    if endpoint is None:
        return None
    parts = path.strip("/").split("/")
    deployment = parts[parts.index("deployments") + 1] if "deployments" in parts[:-1] else ""
    return endpoint, deployment


def body_of(request: Any, endpoint: str, deployment: str) -> Mapping[str, Any]:
    """Read what a request asks for: its JSON, or the fields of its form. One warning,
    and what is known, when it cannot be read.
    """
    try:
        content = request.content
    # the library's RequestNotRead: the body is a stream, which is not ours to consume
    except RuntimeError:
        content = None
    body = _json(content) if content else None
    # dict first: JSON's objects are, and asking an abstract class is slow
    if not isinstance(body, (dict, Mapping)):
        body = _form(request)
        if body is None:
            warn_once(
                f"unread {endpoint}",
                f"the body of a call to {endpoint} could not be read (it is streamed, or not JSON): it is admitted as one request with the"
                " default number of tokens; to meter it exactly use limiter.reserve(tokens=...) around the call",
            )
            body = {}
    if deployment and "model" not in body:
        return {**body, "model": deployment}
    return body


def _json(content: bytes) -> object:
    """Decode a body; None when it is no JSON."""
    try:
        # as every SDK writes it, and a third of the work
        return _DECODER.raw_decode(content.decode())[0]
    except (ValueError, RecursionError):
        pass
    try:
        return json.loads(content)  # with blanks around it, a byte order mark, in UTF-16
    except (ValueError, RecursionError):
        return None


def _form(request: Any) -> Mapping[str, Any] | None:
    """Read the small fields of a multipart form, as the library keeps them until it
    sends; None when there are none.
    """
    fields = getattr(getattr(request, "stream", None), "fields", None)
    if not isinstance(fields, list):
        return None
    found: dict[str, Any] = {}
    for field in fields:
        name, value = getattr(field, "name", None), getattr(field, "value", None)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if name in _FIELDS and isinstance(value, (str, int)):
            found[name] = (
                int(value)
                if name == "n" and str(value).isascii() and str(value).isdigit()
                else value
            )
    return found


def readable(accepted: str) -> str:
    """Take out of an accept-encoding what the taps cannot read: the standard library
    inflates gzip and deflate, but not br and zstd.
    """
    kept = [
        coding.strip()
        for coding in accepted.split(",")
        if coding.split(";")[0].strip().lower() not in {"br", "zstd", "*"}
    ]
    return ", ".join(kept) or "identity"


# ---- answers ------------------------------------------------------------------------------------------------------------------------------


class BodyMeter:
    """Sees one answer's body pass and settles its lease at the end: by its usage, by
    its text, or by keeping the reserve.

    `feed` takes the bytes as they came from the network; then `end` or `fail`, of which
    the first call counts.
    """

    done = False

    def __init__(
        self, lease: Lease, reader: JsonReader | SSEUsage | None, inflate: Decompressor | None
    ) -> None:
        self._lease = lease
        self._reader = reader
        self._inflate = inflate
        self.feed: Callable[[bytes], None] = (
            self._feed if reader is None or inflate is not None else reader.feed
        )

    def _feed(self, piece: bytes) -> None:
        if self._reader is not None and self._inflate is not None:
            self._reader.feed(self._inflate.feed(piece))

    def end(self) -> None:
        """The body ended, or whoever reads it has closed it."""
        if self.done:
            return
        self.done = True
        reader, lease = self._reader, self._lease
        if reader is None:
            lease.close()
            return
        reader.close()
        if reader.usage is not None:
            lease.settle(reader.usage)
        refusal = read_error(reader.error) if reader.error is not None else None
        if refusal is not None:
            lease.refuse(refusal)
        elif reader.usage is None and isinstance(reader, SSEUsage):
            lease.settle_by_text(reader.text)
        elif reader.usage is None:
            lease.close()

    def fail(self, error: BaseException) -> None:
        """The body broke off: what a stream has said until then counts, else the
        reserve is kept.
        """
        if isinstance(self._reader, SSEUsage):
            self.end()
        elif not self.done:
            self.done = True
            self._lease.fail(error)


class Decompressor:
    """Undoes gzip and deflate in passing; what cannot be undone becomes nothing, with
    one warning.
    """

    __slots__ = ("_begun", "_zlib")

    def __init__(self) -> None:
        self._zlib: Any = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either header
        self._begun = False

    def feed(self, piece: bytes) -> bytes:
        """Return what `piece` adds to the plain body."""
        if self._zlib is None:
            return b""
        try:
            plain: bytes = self._zlib.decompress(piece)
        except zlib.error:
            if self._begun:
                self._zlib = None
                warn_once(
                    "broken encoding",
                    "an answer's body is not what its content-encoding says: its reserve is kept",
                )
                return b""
            self._begun = True
            # deflate without a header, which some servers send
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
            return self.feed(piece)
        self._begun = True
        return plain


def body_meter(lease: Lease, headers: Headers, *, plain: bool = False) -> BodyMeter:
    """Make the tap for an answer with these raw headers; `plain` says that its encoding
    has been undone already.
    """
    values = header_values(headers, "content-type", "content-encoding")
    kind, coding = values["content-type"], values["content-encoding"].lower()
    reader: JsonReader | SSEUsage | None = None
    if "event-stream" in kind:
        reader = SSEUsage()
    elif "json" in kind:
        reader = JsonReader()
    if plain or not coding:
        return BodyMeter(lease, reader, None)
    if reader is not None and coding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
        warn_once(
            f"encoding {coding}",
            f"an answer came encoded as {coding[:20]!r}, which was not asked for: its usage cannot be read, its reserve is kept",
        )
        reader = None
    return BodyMeter(
        lease,
        reader,
        Decompressor() if reader is not None and coding not in {"", "identity"} else None,
    )


def plain_body(raw: bytes, headers: Mapping[str, str]) -> bytes:
    """Undo an answer's content-encoding; as far as it can be undone."""
    coding = (headers.get("content-encoding") or "").strip().lower()
    return Decompressor().feed(raw) if coding in {"gzip", "x-gzip", "deflate"} else raw


def explained(body: bytes, refusal: Refusal) -> bytes | None:
    """Add the advice to the message of a hopeless refusal's body, where the SDK shows
    it; None when the body has no such place.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return None
    error["message"] = f"{error['message']} [ratelimit: {refusal.advice}]"
    return json.dumps(answer).encode()
