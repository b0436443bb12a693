"""JSON bodies that pass in pieces, read for their usage or their error.

Owns what is kept of a body: all of a small one, and of a large one the few members that
matter, wherever they stand. Must never do I/O, wait, or know an HTTP library. Memory is
bounded whatever the server sends; nothing raises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from ratelimit.feedback.counts import Usage, read_usage
from ratelimit.feedback.untrusted import decoded

KEPT_WHOLE: Final = 262_144
"""Bytes up to which a body is kept and decoded as it is; an embeddings answer may be
tens of megabytes of numbers, an image even more.
"""

LARGEST_MEMBER: Final = 65_536
"""Bytes of the largest member that is kept of a larger body."""

WANTED: Final = frozenset(
    {"usage", "usageMetadata", "usage_metadata", "error", "id", "type", "object", "x_groq"}
)
"""The members that are kept of a larger body."""

OPENED: Final = frozenset({"response", "message"})
"""Members that hold an answer: their own members are kept like the body's."""

_NEXT: Final = re.compile(rb'["{}\[\]]')
_NEXT_MEMBER: Final = re.compile(rb'[",{}\[\]]')
_STRING: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_KEY: Final = re.compile(rb'\s*"(\w{1,32})"\s*:')


class JsonReader:
    """Reads a JSON body, fed in any pieces, for its usage or its error."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        """The usage, known after `close`; None where the body has none."""
        self.answer: Mapping[str, object] | None = None
        """After `close` what was kept of the body: all of a small one. None where it is
        no JSON object. Of a list, as Gemini sends its errors, the first object.
        """
        self._body = bytearray()
        self._members: Members | None = None

    @property
    def error(self) -> object:
        """The error that the body holds, known after `close`; None without one."""
        return None if self.answer is None else self.answer.get("error")

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        if self._members is not None:
            self._members.feed(piece)
            return

        self._body += piece
        if len(self._body) > KEPT_WHOLE:
            self._members = Members()
            self._members.feed(bytes(self._body))
            self._body.clear()

    def close(self) -> None:
        """Read what was taken."""
        if self._members is not None:
            answer: object = self._members.found
            self.usage = self._members.last_usage or read_usage(answer)
        else:
            body = bytes(self._body)
            self._body.clear()
            answer = decoded(body)
            self.usage = read_usage(body if isinstance(answer, list) else answer)
            if isinstance(answer, list) and answer:
                answer = answer[0]
        self.answer = answer if isinstance(answer, Mapping) else None


class Members:
    """Keeps the members in `WANTED` of a JSON object that passes in pieces.

    Of what stands inside other members nothing is kept or decoded: a `usage` in a text,
    or in a tool's arguments, is not the answer's. Of a list, as Gemini streams it, the
    elements are looked at one by one.
    """

    def __init__(self) -> None:
        self.found: dict[str, object] = {}
        """The members; of two with one name the outermost, then the last one."""
        self.last_usage: Usage | None = None
        """The usage of the last element that has one, where the body is a list."""
        self._levels: dict[str, int] = {}
        self._depth = 0
        self._level = 1
        self._listed = False
        self._in_string = False
        self._escaped = False
        self._member = bytearray()
        self._dropped = False

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        at = kept = 0
        while at < len(piece):
            if self._in_string:
                at = self._string(piece, at)
                continue

            pattern = _NEXT_MEMBER if self._depth == self._level else _NEXT
            match = pattern.search(piece, at)
            if match is None:
                break

            at = match.end()
            mark = match[0]
            if mark == b'"':
                self._in_string = True
            elif mark == b",":
                self._keep(piece[kept : match.start()])
                self._end_member()
                kept = at
            elif mark in b"{[":
                kept = self._open(mark, piece, kept, at)
            else:
                kept = self._close(piece, kept, at)

        if self._depth >= self._level:
            self._keep(piece[kept:])

    def _string(self, piece: bytes, at: int) -> int:
        """Pass over a string; return the position behind it, or the piece's end."""
        if self._escaped:
            self._escaped = False
            at += 1
        match = _STRING.match(piece, at)
        end = match.end() if match is not None else at
        if end >= len(piece):
            return len(piece)

        if piece[end] == ord("\\"):  # the piece ends between a backslash and its letter
            self._escaped = True
        else:
            self._in_string = False
        return end + 1

    def _open(self, mark: bytes, piece: bytes, kept: int, at: int) -> int:
        """Take an opening bracket; return the position up to which bytes are kept."""
        self._depth += 1
        if self._depth == 1:
            self._listed = mark == b"["
            return at

        if self._depth > self._level + 1 or mark == b"[" or self._listed:
            return kept

        self._keep(piece[kept : at - 1])
        key = _KEY.fullmatch(self._member.rstrip())
        if key is not None and key[1].decode() in OPENED:
            self._level += 1
            self._member.clear()
        else:
            self._keep(mark)
        return at

    def _close(self, piece: bytes, kept: int, at: int) -> int:
        """Take a closing bracket; return the position up to which bytes are kept."""
        ends = self._depth == self._level
        self._depth -= 1
        if not ends:
            return kept

        self._keep(piece[kept : at - 1])
        self._end_member()
        self._level = max(self._depth, 1)
        return at

    def _keep(self, piece: bytes) -> None:
        if self._dropped or not piece:
            return
        self._member += piece
        if len(self._member) > LARGEST_MEMBER:
            self._member.clear()
            self._dropped = True

    def _end_member(self) -> None:
        member, dropped = bytes(self._member), self._dropped
        self._member.clear()
        self._dropped = False
        if dropped or not member.strip():
            return

        if self._listed:
            self.last_usage = read_usage(member) or self.last_usage
            return

        key = _KEY.match(member)
        name = key[1].decode() if key is not None else ""
        if name in WANTED and self._levels.get(name, self._level) >= self._level:
            try:
                self.found[name] = json.loads(b"{%b}" % member)[name]
            except (ValueError, KeyError, RecursionError):
                return
            self._levels[name] = self._level
