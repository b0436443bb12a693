"""The first pass over a file of requests: is it usable, and how much is left to do.

Owns what is found out before anything is sent or paid. Must never send, or keep more in
memory than the names that have to be unique.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ratelimit.batch.journal import Done
from ratelimit.batch.lines import parse_line, read_lines
from ratelimit.batch.requests import Request, key_of, read_request
from ratelimit.errors import InvalidArgument

SHOWN: Final = 5
"""Problems that are spelled out; the rest is counted."""


@dataclass(slots=True)
class Survey:
    """What a file of requests holds."""

    total: int = 0
    left: int = 0
    """Requests that are to be sent."""
    models: Counter[str] = field(default_factory=Counter)
    """Requests that are to be sent, by model."""
    failed: int = 0
    """Requests with a failure as their result."""
    problems: list[str] = field(default_factory=list)
    """Why lines cannot be used, in words; the first `SHOWN`."""
    broken: int = 0
    """Lines that cannot be used."""

    def complain(self, problem: str) -> None:
        """Count one more broken line."""
        self.broken += 1
        if len(self.problems) < SHOWN:
            self.problems.append(problem)


def _is_read_once(path: Path) -> bool:
    """Return whether a path is a pipe or a device."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # reading it says why

    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


class Source:
    """A file of requests, and which of them are to be sent.

    :param done: what the file of results holds already.
    :param model: sent in place of the model each request names.
    :param endpoint: asked by lines that name none; a name or path.
    :param retry: send what failed, and only that; else what has no result yet.
    """

    def __init__(
        self,
        path: Path,
        done: Done,
        *,
        model: str | None = None,
        endpoint: str | None = None,
        retry: bool = False,
    ) -> None:
        self.path = path
        self._done = done
        self._model = model
        self._endpoint = endpoint
        self._retry = retry

    def survey(self) -> Survey:
        """Read the whole file once.

        Two requests of one name are a problem: their results could not be
        distinguished. Raises `InvalidArgument` for what can be read only once.
        """
        if _is_read_once(self.path):
            raise InvalidArgument(
                f"{self.path} is no ordinary file, and a run reads its requests twice; write them"
                " to a file first"
            )

        found = Survey()
        names: set[bytes] = set()
        for number, raw in read_lines(self.path):
            try:
                request = self._request(number, raw)
            except InvalidArgument as error:
                found.complain(str(error))
                continue

            found.total += 1
            # names that are made here differ by their number
            if request.given.get("custom_id") is not None:
                key = key_of(request.custom_id)
                if key in names:
                    found.complain(
                        f"{self._where(number)} has the custom_id"
                        f" {request.custom_id[:100]!r} of an earlier line"
                    )
                names.add(key)

            if self._done.failed and key_of(request.custom_id) in self._done.failed:
                found.failed += 1
            if self._is_wanted(request):
                found.left += 1
                found.models[request.model] += 1

        return found

    def __iter__(self) -> Iterator[Request]:
        for number, raw in read_lines(self.path):
            request = self._request(number, raw)
            if self._is_wanted(request):
                yield request

    def _where(self, number: int) -> str:
        return f"line {number} of {self.path}"

    def _request(self, number: int, raw: bytes) -> Request:
        where = self._where(number)
        return read_request(
            parse_line(raw, where),
            number,
            where=where,
            model=self._model,
            endpoint=self._endpoint,
            option="--endpoint",
        )

    def _is_wanted(self, request: Request) -> bool:
        done = self._done
        if not (done.failed or done.answered):
            return not self._retry

        key = key_of(request.custom_id)
        if self._retry:
            return key in done.failed

        return key not in done.answered and key not in done.failed
