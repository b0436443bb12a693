"""Streams read in passing: the usage at the end, the text on the way, an error inside.

Owns server-sent events cut in any way, and the chunk shapes of Chat Completions,
completions and Responses (Anthropic's tolerated). Must never do I/O, wait or read a
clock. Memory is bounded whatever the server sends; nothing raises.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from ratelimit.feedback.answers import error_by_shape
from ratelimit.feedback.bodies import Members
from ratelimit.feedback.counts import Usage, is_impossible, read_usage
from ratelimit.feedback.untrusted import field, is_filled, items, text

MOST_TEXT: Final = 1_000_000
"""Characters of generated text that are kept for counting."""

MOST_CHOICES: Final = 1_024
"""Choices of one stream that are kept apart; a request can ask for 128."""

LONGEST_LINE: Final = 1_000_000
"""Bytes of a line that is decoded whole; a Responses event may carry a picture."""

_LAST_EVENTS: Final = frozenset(
    {
        "response.completed",
        "response.incomplete",
        "response.failed",
        "response.cancelled",
        "message_stop",
    }
)
"""Events after which a stream of Responses or of Anthropic's messages sends nothing."""

_FIRST_EVENTS: Final = frozenset({"response.created", "response.in_progress", "message_start"})
"""Events after which one of `_LAST_EVENTS` comes."""

_REPEATING: Final = frozenset({"content.delta", "refusal.delta"})
"""Events in which the SDK repeats the text of a chunk that it hands on as well."""

_ERROR_FIELDS: Final = ("message", "code", "type", "status", "status_code", "metadata", "details")

_TEXTS: Final = ("content", "reasoning_content", "reasoning", "refusal")
"""Where chat's delta holds generated text."""


class StreamUsage:
    """Reads the chunks of one stream, SDK objects or mappings, one `feed` each."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        """The last usage seen, None until then."""
        self.error: Mapping[str, object] | None = None
        """The error that came inside the stream, None without one.

        What it has of `message`, `code`, `type` and status, and its details.
        """
        self.finished = False
        """Whether the last word has come: whoever leaves the stream now misses nothing
        but, at most, its usage.
        """
        self._unfinished: set[int] = set()
        self._ended: set[int] = set()
        self._awaits_last_event = self._ends_in_usage = False
        self._parts: list[str] = []
        self._length = 0

    @property
    def is_cut(self) -> bool:
        """Whether a stream that ends now lacks its last word: its server broke off.

        A form that has no known last word never lacks it.
        """
        is_open = bool(self._unfinished) or self._awaits_last_event
        return is_open and not self.finished and not self._ends_in_usage

    @property
    def text(self) -> str:
        """What was generated so far, at most `MOST_TEXT` characters.

        Answers, reasoning that is shown, and the arguments of tool calls.
        """
        self._parts = ["".join(self._parts)]
        return self._parts[0]

    def feed(self, chunk: object) -> None:
        """Take one chunk or event; whatever is not one is ignored."""
        if chunk is None or isinstance(chunk, (str, bytes)):
            return

        kind = text(field(chunk, "type"), 100)
        if kind == "chunk":
            # of the SDK's `chat.completions.stream`, beside events that repeat its text
            chunk, kind = field(chunk, "chunk"), ""
        choices = field(chunk, "choices")
        if isinstance(choices, (list, tuple)):
            for choice in choices:
                self._add_choice(choice)
        elif kind:
            delta = field(chunk, "delta")
            # response.output_text.delta, response.function_call_arguments.delta, ...
            if isinstance(delta, str):
                if kind not in _REPEATING:
                    self._add(delta)
            elif delta is not None:  # Anthropic's content_block_delta
                self._add(field(delta, "text"))
                self._add(field(delta, "partial_json"))
            self.finished = self.finished or kind in _LAST_EVENTS
            self._awaits_last_event = self._awaits_last_event or kind in _FIRST_EVENTS

        found = read_usage(chunk)
        # chat's last chunk, which some servers send without a finish reason before it
        self._ends_in_usage = found is not None and isinstance(choices, list) and not choices
        if self.usage is not None and found is None and is_impossible(chunk):
            self.usage = None  # what was used so far is less than what was used
        self.add_usage(found)
        is_known = kind or found is not None or is_filled(choices)
        self._add_error(_error_in(chunk, kind, is_known=bool(is_known)))

    def add_usage(self, found: Usage | None) -> None:
        """Take the usage of one chunk; None when it has none."""
        if found is None:
            return

        before = self.usage
        if before is not None and found.prompt_tokens == 0:
            # Anthropic: the prompt comes first, the output last
            found = before._replace(
                output_tokens=found.output_tokens,
                total_tokens=before.prompt_tokens + found.output_tokens,
                reasoning_tokens=found.reasoning_tokens,
            )
        self.usage = found

    def _add_error(self, error: object) -> None:
        """Take the error of a chunk, an event or a choice; nothing when it has none."""
        if not is_filled(error) or isinstance(error, (int, float)):
            return
        if isinstance(error, str):
            self.error = {"message": error}
        else:
            found = {name: field(error, name) for name in _ERROR_FIELDS}
            self.error = {name: value for name, value in found.items() if value is not None}

    def _add_choice(self, choice: object) -> None:
        """Take the text of one choice: chat's delta, or a legacy completion's text."""
        index = field(choice, "index")
        number = index if isinstance(index, int) else 0
        if field(choice, "finish_reason") is not None:
            self._unfinished.discard(number)
            self._note(number, self._ended)
            self._add_error(field(choice, "error"))
        elif number not in self._ended:  # some servers repeat a choice beside the usage
            self._note(number, self._unfinished)
        self.finished = not self._unfinished

        delta = field(choice, "delta")
        if delta is None:
            self._add(field(choice, "text"))
            return

        for name in _TEXTS:
            self._add(field(delta, name))
        for call in items(field(delta, "tool_calls")):
            function = field(call, "function")
            self._add(field(function, "name"))
            self._add(field(function, "arguments"))

    def _note(self, number: int, choices: set[int]) -> None:
        if len(self._unfinished) + len(self._ended) < MOST_CHOICES:
            choices.add(number)

    def _add(self, piece: object) -> None:
        if isinstance(piece, str) and piece and self._length < MOST_TEXT:
            self._parts.append(piece[: MOST_TEXT - self._length])
            self._length += len(self._parts[-1])


def _error_in(chunk: object, kind: str, *, is_known: bool) -> object:
    """Return the error that a chunk holds or is; None where there is none.

    One of an unknown form that holds nothing keeps the connection alive.
    """
    error = field(chunk, "error")
    if not is_filled(error):
        error = field(field(chunk, "response"), "error")
    if is_filled(error):
        return error
    if kind == "error":
        return chunk
    if is_known or not isinstance(chunk, Mapping):
        return None
    return error_by_shape({name: value for name, value in chunk.items() if name != "choices"})


class SSEUsage:
    """Reads a server-sent event stream as bytes, fed in any pieces.

    What it finds is `StreamUsage`'s. Of a line beyond `LONGEST_LINE` bytes only the few
    members are kept that hold its usage or error.
    """

    def __init__(self) -> None:
        self._stream = StreamUsage()
        self._line = bytearray()
        self._ends_in_cr = False
        self._members: Members | None = None
        self._name = b""
        self._lines: list[bytes] = []
        self._size = 0

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
        """Whether the last word has come."""
        return self._stream.finished

    @property
    def is_cut(self) -> bool:
        """Whether a stream that ends now lacks its last word."""
        return self._stream.is_cut

    @property
    def text(self) -> str:
        """The generated text so far, at most `MOST_TEXT` characters."""
        return self._stream.text

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the stream."""
        if self._ends_in_cr and piece:
            piece = piece.removeprefix(b"\n")
            self._ends_in_cr = False
        if b"\r" in piece:
            self._ends_in_cr = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = piece.split(b"\n")
        for line in lines:
            self._extend(line)
            self._end_line()
        self._extend(rest)

    def close(self) -> None:
        """Take what is left: the stream may end without a line end."""
        self._end_line()
        self._end_event()

    def _extend(self, piece: bytes) -> None:
        if self._members is not None:
            self._members.feed(piece)
            return

        self._line += piece
        if len(self._line) > LONGEST_LINE:
            self._members = Members()
            self._members.feed(bytes(self._line).removeprefix(b"data:"))
            self._line.clear()

    def _end_line(self) -> None:
        if self._members is not None:
            self._take(self._members.found)
            self._members = None
            return

        line = bytes(self._line)
        self._line.clear()
        if not line:
            self._end_event()
        elif line.startswith(b"data:"):
            self._add_data(line[5:].strip())
        elif line.startswith(b"event:"):
            self._name = line[6:].strip()

    def _add_data(self, data: bytes) -> None:
        """Take a line of data, which is a whole event nearly always.

        One that is none is kept until the event's end, beside those that follow it.
        """
        if data == b"[DONE]":
            self._end_event()
            self._stream.finished = True
        elif self._lines or not self._is_taken(data):
            self._lines.append(data)
            self._size += len(data) + 1
            if self._size > LONGEST_LINE:
                self._end_event()

    def _end_event(self) -> None:
        """Take the event that stands in several lines.

        Where they are none together, events may have come without an empty line between
        them, after one that was cut.
        """
        lines = self._lines
        if lines and not self._is_taken(b"\n".join(lines)):
            for line in lines[1:]:
                self._is_taken(line)
        self._name, self._lines, self._size = b"", [], 0

    def _is_taken(self, data: bytes) -> bool:
        """Take an event; return whether it is one."""
        try:
            event: object = json.loads(data)
        except (ValueError, RecursionError):  # the client reads the same bytes itself
            return False
        if isinstance(event, Mapping):
            self._take(event)
        return True

    def _take(self, event: Mapping[str, object]) -> None:
        self._stream.feed({"error": event} if self._is_error(event) else event)

    def _is_error(self, event: Mapping[str, object]) -> bool:
        """Tell whether an event is an error by its name alone."""
        is_chunk = "error" in event or "choices" in event
        return self._name == b"error" and not is_chunk
