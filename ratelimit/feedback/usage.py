"""Usage, of whole answers and of streams read in passing: the counts at the end, the
text on the way, the error that a 200 can hide.

Owns: server-sent events cut in any way, and the chunk shapes of Chat Completions,
completions and Responses (Anthropic's tolerated). Must never come in: I/O, waiting,
clocks. Memory is bounded whatever the server sends; nothing raises.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ratelimit.feedback.counts import Usage, read_usage, tail_usage
from ratelimit.feedback.untrusted import field

__all__ = ["MOST_TEXT", "SSEUsage", "StreamUsage", "Usage", "read_usage"]

MOST_TEXT = 1_000_000
"""Characters of generated text kept for counting; what comes after only adds to
`text_length`.
"""

_LONG_LINE = 1_000_000
_TAIL = 65_536
_FINAL = frozenset(
    {
        "response.completed",
        "response.incomplete",
        "response.failed",
        "response.cancelled",
        "message_stop",
        "error",
    }
)
_SPOKEN = ("content", "reasoning_content", "reasoning", "refusal")


class StreamUsage:
    """Reads the chunks of one stream, SDK objects or mappings, one `feed` each.

    `usage`: the last one seen, None until then. `text`: what was generated so far
    (answers, reasoning that is shown, arguments of tool calls), at most `MOST_TEXT`
    characters; `text_length` counts all. `error`: the error that came inside the stream
    (`message`, `code`, `type`), else None. `finished`: the stream came to its proper
    end, or to its error.
    """

    __slots__ = ("_parts", "error", "finished", "text_length", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.error: Mapping[str, object] | None = None
        self.finished = False
        self.text_length = 0
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """The generated text so far, at most `MOST_TEXT` characters."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    def feed(self, chunk: object) -> None:
        """Take one chunk or event; whatever is not one is ignored."""
        if chunk is None or isinstance(chunk, (str, bytes)):
            return
        kind = field(chunk, "type")
        choices = field(chunk, "choices")
        if isinstance(choices, (list, tuple)):
            for choice in choices:
                self._speak(choice)
        elif isinstance(kind, str):
            delta = field(chunk, "delta")
            # response.output_text.delta, response.function_call_arguments.delta, ...
            if isinstance(delta, str):
                self._add(delta)
            elif delta is not None:  # Anthropic's content_block_delta
                self._add(field(delta, "text"))
                self._add(field(delta, "partial_json"))
            self.finished = self.finished or kind in _FINAL
        self._learn(chunk)
        self._fail(chunk, kind)

    def _learn(self, chunk: object) -> None:
        found = read_usage(chunk)
        if found is None:
            return
        before = self.usage
        # Anthropic: the prompt comes first, the output last
        if before is not None and found.prompt_tokens == 0:
            found = Usage(
                before.prompt_tokens,
                found.output_tokens,
                before.prompt_tokens + found.output_tokens,
                before.cached_tokens,
            )
        self.usage = found

    def _fail(self, chunk: object, kind: object) -> None:
        error = field(chunk, "error")
        if error is None:
            error = field(field(chunk, "response"), "error")
        if error is None and kind == "error":
            error = chunk
        if error is not None and not isinstance(error, (int, float)):
            spoken = (
                {"message": error}
                if isinstance(error, str)
                else {name: field(error, name) for name in ("message", "code", "type")}
            )
            self.error = spoken
            self.finished = True

    def _speak(self, choice: object) -> None:
        """Take one choice: chat's delta, or a legacy completion's text."""
        delta = field(choice, "delta")
        if delta is None:
            self._add(field(choice, "text"))
            return
        for name in _SPOKEN:
            self._add(field(delta, name))
        calls = field(delta, "tool_calls")
        for call in calls if isinstance(calls, (list, tuple)) else ():
            function = field(call, "function")
            self._add(field(function, "name"))
            self._add(field(function, "arguments"))

    def _add(self, piece: object) -> None:
        if isinstance(piece, str) and piece:
            room = MOST_TEXT - self.text_length
            self.text_length += len(piece)
            if room > 0:
                self._parts.append(piece[:room])


class SSEUsage:
    """Reads a server-sent event stream as bytes, fed in any pieces; the figures are
    `StreamUsage`'s.

    A line beyond a million bytes (a Responses event may carry a whole picture) is not
    kept whole: only its end, where the usage stands.
    """

    __slots__ = ("_cut", "_line", "_stream")

    def __init__(self) -> None:
        self._stream = StreamUsage()
        self._line = bytearray()
        self._cut = False

    @property
    def usage(self) -> Usage | None:
        """The last usage seen, None until then."""
        return self._stream.usage

    @property
    def error(self) -> Mapping[str, object] | None:
        """The error that came inside the stream, else None."""
        return self._stream.error

    @property
    def finished(self) -> bool:
        """Whether the stream came to its proper end, or to its error."""
        return self._stream.finished

    @property
    def text(self) -> str:
        """The generated text so far, at most `MOST_TEXT` characters."""
        return self._stream.text

    @property
    def text_length(self) -> int:
        """Characters generated so far, all of them."""
        return self._stream.text_length

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the stream."""
        if b"\r" in piece:
            # empty lines mean nothing here, so CRLF may become two
            piece = piece.replace(b"\r", b"\n")
        *lines, rest = piece.split(b"\n")
        for line in lines:
            self._extend(line)
            self._end_line()
        self._extend(rest)

    def close(self) -> None:
        """Take what is left as a line: the stream may have ended without a line end."""
        self._end_line()

    def _extend(self, piece: bytes) -> None:
        self._line += piece
        if len(self._line) > _LONG_LINE:
            del self._line[:-_TAIL]
            self._cut = True

    def _end_line(self) -> None:
        line, cut = bytes(self._line), self._cut
        self._line.clear()
        self._cut = False
        if cut:
            usage = tail_usage(line)
            if usage is not None:
                self._stream.usage = usage
        elif line.startswith(b"data:"):
            data = line[5:].strip()
            if data == b"[DONE]":
                self._stream.finished = True
            elif data:
                self._event(data)

    def _event(self, data: bytes) -> None:
        try:
            event: object = json.loads(data)
        except (ValueError, RecursionError):  # not ours to judge: the client reads the same bytes
            return
        if isinstance(event, Mapping):
            self._stream.feed(event)
