"""The file by which a person steers a run that goes on.

Owns reading it and what it asks for. Must never raise while a run goes on: what cannot
be used is a sentence, and the settings stay as they were.

It is a small TOML file, read again while the run goes on:

    pause = true        # nothing more is sent; what is in flight is finished
    rpm = 100           # likewise tpm, rpd, tpd and concurrency
    tpm = "30k"

What it does not name is as the command was started, and so is everything when the file
is removed. A text counts once two looks have found it alike, so that one which an
editor is still writing changes nothing.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ratelimit import Limits, RateLimiter
from ratelimit.arguments import similar
from ratelimit.commands import CommandError
from ratelimit.errors import InvalidArgument

LIMITS: Final = ("rpm", "tpm", "rpd", "tpd", "concurrency")
NAMES: Final = ("pause", *LIMITS)

LARGEST: Final = 65_536
"""Bytes of the longest file that is read."""


class Nonsense(Exception):
    """The file cannot be used; the message is the sentence about it."""


class Control:
    """What the file asks for, and the limiter that obeys it.

    :param limits: those that the run was started with, by pattern of model names; an
        empty one is learned from the server.

    Raises `CommandError` for a file that cannot be used at the start.
    """

    def __init__(self, path: Path, limiter: RateLimiter, limits: Mapping[str, Limits]) -> None:
        self._path = path
        self._limiter = limiter
        self._given = limits
        self._learned: Mapping[str, Limits] = {}
        self._found: bytes | None = None  # by the last look
        self._obeyed: bytes | None = b""
        self._asked: Mapping[str, Any] = {}
        self.paused = False
        """Whether nothing more is to be sent."""
        try:
            self._found = self._read()
            self._obey(self._found)
        except Nonsense as error:
            raise CommandError(f"{error}; nothing was sent") from None

    @property
    def shown(self) -> str:
        """What is asked for now, in few words; "" while nothing is."""
        parts = ["paused"] * self.paused
        parts += [f"{name} {self._asked[name]}" for name in LIMITS if name in self._asked]
        return ", ".join(parts)

    @property
    def name(self) -> str:
        """The file's name."""
        return self._path.name

    def look(self) -> str:
        """Look at the file once more; return the sentence to say, if any."""
        try:
            found = self._read()
        except Nonsense as error:
            text = str(error).encode()  # said once
            is_new = self._found != text
            self._found = text
            return f"{error}; the settings stay as they were" if is_new else ""
        before, self._found = self._found, found
        if found != before or found == self._obeyed:
            return ""
        was_paused = self.paused
        try:
            self._obey(found)
        except Nonsense as error:
            self._obeyed = found  # so that it is said once
            return f"{error}; the settings stay as they were"
        if self.paused and not was_paused:
            return f"{self.name}: paused; what is in flight is finished"
        state = self.shown or "as the command was started"
        return f"{self.name}: {'goes on, ' if was_paused and not self.paused else ''}{state}"

    def _read(self) -> bytes:
        """Return what stands there; nothing where there is no file."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except (FileNotFoundError, NotADirectoryError):
            return b""
        except OSError as error:
            raise Nonsense(f"cannot read {self._path}: {error.strerror or error}") from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Nonsense(f"{self._path} is no ordinary file, so it steers no run")
            found = os.read(descriptor, LARGEST + 1)
        except OSError as error:
            raise Nonsense(f"cannot read {self._path}: {error.strerror or error}") from None
        finally:
            os.close(descriptor)
        if len(found) > LARGEST:
            raise Nonsense(f"{self._path} is too long for a file that steers a run")
        return found

    def _obey(self, text: bytes) -> None:
        asked = self._settings(text)
        limits = self._limits({name: asked[name] for name in LIMITS if name in asked})
        try:
            if limits is not None:
                self._limiter.replace(limits=limits)
        except InvalidArgument as error:
            raise Nonsense(f"{self._path}: {error}") from None
        self._asked, self._obeyed = asked, text
        self.paused = asked.get("pause", False)

    def _settings(self, text: bytes) -> dict[str, Any]:
        """Return what the text asks for; raise `Nonsense` for what it cannot be."""
        try:
            asked = tomllib.loads(text.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            reason = "it is no UTF-8" if isinstance(error, UnicodeError) else str(error)
            raise Nonsense(
                f"{self._path} cannot be read ({reason}); it has lines such as "
                "pause = true, or rpm = 100"
            ) from None
        for name in asked:
            if name not in NAMES:
                meant = similar(name, NAMES)
                what = f"did you mean {meant}?" if meant else f"there are {', '.join(NAMES)}"
                raise Nonsense(f"{self._path}: there is no setting {name[:40]!r}; {what}")
        if not isinstance(asked.get("pause", False), bool):
            raise Nonsense(f"{self._path}: pause is true or false, not {asked['pause']!r}")
        return asked

    def _limits(self, asked: Mapping[str, Any]) -> dict[str, Limits] | None:
        """Return the limits to hold, by pattern; None: they are held already."""
        before = {name: self._asked[name] for name in LIMITS if name in self._asked}
        if asked == before:
            return None
        try:
            more = Limits(**asked)
        except InvalidArgument as error:
            raise Nonsense(f"{self._path}: {error}") from None
        if not before:  # what is learned of the server later is not known to be lower
            self._learned = {name: self._limiter.limits(name) for name in self._given}
        if not asked:
            return dict(self._given)
        made = {}
        for name, given in self._given.items():
            base = given if len(given) else self._learned[name]
            rows = {(limit.name, limit.per): limit for limit in (*base, *more)}
            concurrency = more.concurrency or given.concurrency
            made[name] = Limits(*rows.values(), concurrency=concurrency)
        return made
