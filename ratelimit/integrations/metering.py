"""The meters of answers: they read the bytes that pass, and settle the lease.

Owns how a body's usage is found, whole or streamed, and the undoing of its encoding.
Must never wait, use the network, or import an HTTP library: headers are raw pairs.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from ratelimit.events.records import name_of
from ratelimit.feedback import JsonReader, Refusal, SSEUsage, header_values
from ratelimit.feedback.untrusted import decoded
from ratelimit.integrations.settlement import (
    holds_output,
    settle_stream,
    settle_whole,
    warn_once,
)
from ratelimit.lease import AdmittedLease as Lease
from ratelimit.lease.flights import note_reader

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Names and values as they came, in any case: the libraries' own look-ups walk and
decode the whole list for every name.
"""


class BodyMeter:
    """Reads one answer's body while it passes, and settles its lease at the end.

    `feed` takes the bytes as they came from the network; then `end` or `break_off`, of
    which the first call counts.

    :param host: the server's name, which decides what an error in the body means.
    :param is_readable: whether the body's encoding is known, or there is none.
    """

    def __init__(
        self, lease: Lease, inflate: Decompressor | None, host: str, *, is_readable: bool = True
    ) -> None:
        self._lease = lease
        self._inflate = inflate
        self._host = host
        self._is_readable = is_readable
        self._start = b""
        self._reader: JsonReader | SSEUsage | None = None
        self._done = False
        self.feed: Callable[[bytes], None] = self._begin if is_readable else _pass_over

    def _begin(self, piece: bytes) -> None:
        """Choose the reader by the first bytes that are not blank.

        The content-type of a relay may say anything.
        """
        plain = piece if self._inflate is None else self._inflate.feed(piece)
        start = (self._start + plain).lstrip(_BLANK)
        if start.startswith(_JSON_STARTS):
            self._reader = JsonReader()
        elif start.startswith(_STREAM_STARTS):
            self._reader = SSEUsage()
        elif any(name.startswith(start) for name in _STREAM_STARTS):  # cut within a name
            self._start = start
            return
        else:
            self.feed = _pass_over
            return
        self._reader.feed(start)
        self.feed = self._reader.feed if self._inflate is None else self._feed_inflated

    def _feed_inflated(self, piece: bytes) -> None:
        if self._reader is not None and self._inflate is not None:
            self._reader.feed(self._inflate.feed(piece))

    def pass_on(self, piece: bytes) -> None:
        """Read a piece on its way to the task that reads the body."""
        self.feed(piece if type(piece) is bytes else bytes(piece))  # a transport may pass a view
        if isinstance(self._reader, SSEUsage):
            note_reader(self._lease)

    def end(self, *, complete: bool = False) -> None:
        """Settle a body that came to its end (`complete`) or was left."""
        if self._done:
            return

        self._done = True
        reader, lease = self._reader, self._lease
        if reader is not None:
            reader.close()
            if isinstance(reader, SSEUsage):
                shown = settle_stream(lease, reader, complete=complete, host=self._host)
            else:
                shown = settle_whole(lease, reader.usage, reader.answer, self._host)
            if shown:
                return

        is_stream = isinstance(reader, SSEUsage)  # and complete, as it has shown nothing
        broken = self._inflate is not None and self._inflate.is_broken
        if (complete or is_stream) and self._is_readable and not broken:
            _warn_of_no_usage(lease, is_stream=is_stream)
        lease.close()

    def break_off(self) -> None:
        """Settle a body that broke off by what is known of it.

        After a stream the client does not try again. After any other body it may, with
        a lease of its own, so that the answer is not this attempt's.
        """
        if self._done:
            return

        self.end()
        if not isinstance(self._reader, SSEUsage):
            self._lease.abandon()


_BLANK: Final = b" \t\r\n\xef\xbb\xbf"
"""Bytes that may stand before a body: white space and the mark of UTF-8."""

_JSON_STARTS: Final = (b"{", b"[")

_STREAM_STARTS: Final = (b":", b"data:", b"event:", b"id:", b"retry:")
"""First bytes of a server-sent event: a comment, or the name of a field."""


def _pass_over(_: bytes) -> None:
    """Read nothing of a body that shows no usage."""


def _warn_of_no_usage(lease: Lease, *, is_stream: bool) -> None:
    """Say once for each model that its reserve stays, where it is a reserve."""
    if lease.estimate is None or not holds_output(lease):
        return

    model = name_of(lease.estimate.model)
    what, remedy = (
        ("a stream", 'stream_options={"include_usage": True} asks the server for the usage')
        if is_stream
        else ("an answer", "limiter.reserve(...) around the call can settle it by hand")
    )
    warn_once(
        f"no usage {what} {model}",
        f"{what} of {model or 'a model'} ended without usage, so all that was reserved for it stays"
        f" debited; {remedy}",
    )


class Decompressor:
    """Undoes gzip, of one member or several, and deflate in passing.

    What cannot be undone becomes nothing, with one warning.
    """

    __slots__ = ("_begun", "_head", "_zlib")

    def __init__(self) -> None:
        self._zlib: Any = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either header
        self._begun = False
        self._head = b""

    @property
    def is_broken(self) -> bool:
        """Whether a piece was met that could not be undone."""
        return self._zlib is None

    def feed(self, piece: bytes) -> bytes:
        """Return what `piece` adds to the plain body."""
        if self._zlib is None:
            return b""

        if not self._begun:
            piece = self._head + piece
            if len(piece) < _HEADER:
                self._head = piece
                return b""

        try:
            plain = self._inflated(piece)
        except zlib.error:
            if self._begun:
                self._zlib = None
                warn_once(
                    "broken encoding",
                    "an answer's body is not what its content-encoding says: its reserve is kept",
                )
                return b""

            self._begun = True
            # Some servers send deflate without a header.
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
            return self.feed(piece)

        self._begun = True
        return plain

    def _inflated(self, piece: bytes) -> bytes:
        plain = []
        while piece:
            if self._zlib.eof:
                if not piece.startswith(_MEMBER):
                    break  # what stands behind the body is none of it
                self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 16)
            plain.append(self._zlib.decompress(piece))
            piece = self._zlib.unused_data
        return b"".join(plain)


_HEADER: Final = 2
"""Bytes by which a body with a header is known from one without."""

_MEMBER: Final = b"\x1f"
"""The first byte of a member of gzip."""


def body_meter(lease: Lease, headers: Headers, host: str, *, plain: bool = False) -> BodyMeter:
    """Make the meter for an answer with these raw headers.

    :param plain: whether the body's encoding has been undone already.
    """
    coding = ""
    if not plain:
        coding = header_values(headers, "content-encoding")["content-encoding"].strip().lower()
    if coding in _PLAIN:
        return BodyMeter(lease, None, host)

    if coding in _READABLE:
        return BodyMeter(lease, Decompressor(), host)

    name = coding[:20]
    warn_once(
        f"encoding {name}",
        f"an answer came encoded as {name!r}, which was not asked for: its usage cannot be read,"
        " its reserve is kept",
    )
    return BodyMeter(lease, None, host, is_readable=False)


_PLAIN: Final = frozenset({"", "identity"})
_READABLE: Final = frozenset({"gzip", "x-gzip", "deflate"})


def plain_body(raw: bytes, headers: Mapping[str, str]) -> bytes:
    """Undo an answer's content-encoding, as far as it can be undone."""
    coding = (headers.get("content-encoding") or "").strip().lower()
    return Decompressor().feed(raw) if coding in _READABLE else raw


def explained(body: bytes, refusal: Refusal) -> bytes | None:
    """Add the advice to the message in a hopeless refusal's body.

    The SDK shows it there. None when the body has no message.
    """
    answer = decoded(body)
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return None

    error["message"] = f"{error['message']} [ratelimit: {refusal.advice}]"
    return json.dumps(answer).encode()
