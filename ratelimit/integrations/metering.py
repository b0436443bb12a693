"""The meters of answers: they read the bytes that pass, and settle the lease.

Owns how a body's usage is found, whole or streamed, and the undoing of its encoding.
Must never wait, use the network, or import an HTTP library: headers are raw pairs.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from ratelimit.feedback import (
    JsonReader,
    Refusal,
    SSEUsage,
    header_values,
    read_error_answer,
)
from ratelimit.integrations.settlement import holds_output, settle_stream, warn_once
from ratelimit.lease import AdmittedLease as Lease

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Names and values as they came, in any case: the libraries' own look-ups walk and
decode the whole list for every name.
"""


class BodyMeter:
    """Reads one answer's body while it passes, and settles its lease at the end.

    `feed` takes the bytes as they came from the network; then `end` or `break_off`, of
    which the first call counts.
    """

    def __init__(
        self, lease: Lease, reader: JsonReader | SSEUsage | None, inflate: Decompressor | None
    ) -> None:
        self._lease = lease
        self._reader = reader
        self._inflate = inflate
        self._done = False
        self.feed: Callable[[bytes], None] = (
            self._feed if reader is None or inflate is not None else reader.feed
        )

    def _feed(self, piece: bytes) -> None:
        if self._reader is not None and self._inflate is not None:
            self._reader.feed(self._inflate.feed(piece))

    def end(self, *, complete: bool = False) -> None:
        """Settle a body that came to its end (`complete`) or was left."""
        if self._done:
            return

        self._done = True
        reader, lease = self._reader, self._lease
        if reader is None:
            lease.close()
            return

        reader.close()
        if isinstance(reader, JsonReader):
            _settle_json(lease, reader)
            return

        if settle_stream(lease, reader, complete=complete):
            return

        if lease.estimate is not None and holds_output(lease):
            model = lease.estimate.model[:100]
            warn_once(
                f"no usage {model}",
                f"a stream of {model or 'a model'} ended without usage, so all that was reserved"
                ' for it stays debited; stream_options={"include_usage": True} asks the server for'
                " the usage",
            )
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


def _settle_json(lease: Lease, reader: JsonReader) -> None:
    usage, answer = reader.usage, reader.answer
    if usage is not None:
        lease.settle(usage)
        if usage.output_tokens and answer is not None and not answer.get("error"):
            return  # something was generated: an answer

    failure = read_error_answer(answer)
    if failure is not None and failure.refusal is not None:
        lease.refuse(failure.refusal)
    lease.close()


class Decompressor:
    """Undoes gzip and deflate in passing.

    What cannot be undone becomes nothing, with one warning.
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
            # Some servers send deflate without a header.
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
            return self.feed(piece)

        self._begun = True
        return plain


def body_meter(lease: Lease, headers: Headers, *, plain: bool = False) -> BodyMeter:
    """Make the meter for an answer with these raw headers.

    :param plain: whether the body's encoding has been undone already.
    """
    values = header_values(headers, "content-type", "content-encoding")
    kind = values["content-type"]
    reader: JsonReader | SSEUsage | None = None
    if "event-stream" in kind:
        reader = SSEUsage()
    elif "json" in kind:
        reader = JsonReader()
    coding = "" if plain else values["content-encoding"].strip().lower()
    if reader is None or coding in _PLAIN:
        return BodyMeter(lease, reader, None)

    if coding in _READABLE:
        return BodyMeter(lease, reader, Decompressor())

    name = coding[:20]
    warn_once(
        f"encoding {name}",
        f"an answer came encoded as {name!r}, which was not asked for: its usage cannot be read,"
        " its reserve is kept",
    )
    return BodyMeter(lease, None, None)


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
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None

    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return None

    error["message"] = f"{error['message']} [ratelimit: {refusal.advice}]"
    return json.dumps(answer).encode()
